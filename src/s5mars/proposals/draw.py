"""Drawing one object of an image at random, and cutting it out for one crop.

The filter is applied here and not when a store is made, so that one store serves every setting;
only the drawn mask is decoded, and resized and smoothed only within the crop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s5mars.data.read import image_size
from s5mars.errors import UserError
from s5mars.proposals.proposal import Proposal, decode_counts
from s5mars.proposals.store import ImageProposals, ObjectStore
from s5mars.proposals.window import Box, resample
from s5mars.types import Sample

MINIMUM_CONFIDENCE = {"graph": 0.4}
"""Where ``ObjectFilter`` asks for the proposer's own default; 0.97 for every other one.

The predicted IoU of SAM, for which 0.97 was chosen, and the stability of graph regions are on
different scales: of the graph regions of a rover image some 25 reach 0.4, and hardly any 0.97.
"""

FIRST = {"graph": 40}
"""Likewise: how many masks of an image, the most confident first, may be drawn; 11 for others."""


@dataclass(frozen=True, kw_only=True)
class ObjectFilter:
    """Which masks qualify to be pasted. Defaults: the released code of S5Mars, 1200² images."""

    minimum_area: float = 1700 / 1200**2  # share of the image, inclusive
    maximum_area: float = 512**2 / 1200**2  # share of the image, inclusive
    minimum_confidence: float | None = None  # predicted IoU; None: see MINIMUM_CONFIDENCE
    first: int | None = None  # only that many from the head of the list; None: see FIRST
    blur: float = 5 / 1200  # standard deviation that smooths outlines, over the longer side

    def __post_init__(self) -> None:
        if not 0 <= self.minimum_area <= self.maximum_area <= 1:
            raise UserError(
                f"object areas {self.minimum_area}..{self.maximum_area}: need 0 <= minimum <= "
                "maximum <= 1 (shares of the image)"
            )
        if self.minimum_confidence is not None and not 0 <= self.minimum_confidence <= 1:
            raise UserError(f"minimum confidence {self.minimum_confidence}: need 0 to 1")
        if (self.first is not None and self.first < 1) or self.blur < 0:
            raise UserError(f"first {self.first}, blur {self.blur}: need first >= 1, blur >= 0")


@dataclass(frozen=True)
class Coverage:
    """How many of some images a store can serve; the others get a random rectangle instead."""

    images: int
    unknown: tuple[str, ...] = ()  # names that the store does not know
    empty: tuple[str, ...] = ()  # nothing was found in them
    unqualified: tuple[str, ...] = ()  # no mask passes the filter

    @property
    def without(self) -> int:
        """Images that get rectangles."""
        return len(self.unknown) + len(self.empty) + len(self.unqualified)

    @property
    def sentence(self) -> str:
        """For notes and reports; "" if every image has a qualified mask."""
        if not self.without:
            return ""
        kinds = (
            ("not in the store", self.unknown),
            ("without any mask", self.empty),
            ("whose masks all fail the filter", self.unqualified),
        )
        parts = [f"{len(names)} {what} (such as {names[0]})" for what, names in kinds if names]
        return (
            f"{self.without} of {self.images} images have no qualified object mask: "
            f"{', '.join(parts)}. Random rectangles are pasted from them."
        )


def coverage(
    store: ObjectStore,
    samples: Iterable[Sample],
    *,
    filter: ObjectFilter,  # noqa: A002
) -> Coverage:
    """Which of these images have a mask to draw; of an image only the size is read.

    Raises:
        UserError: if masks are of another size than their image (the first is named, all are
            counted), or the store is damaged.
        MissingFileError: if an image is gone.
    """
    unknown, empty, unqualified, wrong = [], [], [], []
    images = 0
    for sample in samples:
        images += 1
        if sample.name not in store:
            unknown.append(sample.name)
            continue
        ranks, proposals = _qualified(store, sample.name, filter)
        if not len(proposals):
            empty.append(sample.name)
            continue
        width, height = image_size(sample.image)
        if proposals.size != (height, width):
            wrong.append((sample, proposals.size, (height, width)))
        elif not ranks:
            unqualified.append(sample.name)
    if wrong:
        sample, masks, size = wrong[0]
        raise UserError(
            f"{store.path}: masks of another size than their image for {len(wrong)} of {images} "
            f"images, such as {sample.name}: {_wrong_size(masks, size)}"
        )
    return Coverage(images, tuple(unknown), tuple(empty), tuple(unqualified))


def check_size(proposal: Proposal, sample: Sample, size: tuple[int, int]) -> None:
    """Raise ValueError if a mask is of another size than its image, (H, W) = ``size``."""
    if proposal.size != size:
        raise UserError(f"{sample.image}: {_wrong_size(proposal.size, size)}")


def _wrong_size(masks: tuple[int, int], image: tuple[int, int]) -> str:
    return (
        f"object masks of {masks[1]}×{masks[0]} pixels, but the image has {image[1]}×{image[0]}: "
        "make or import the masks of these very images"
    )


def qualified(store: ObjectStore, name: str, *, filter: ObjectFilter) -> list[int]:  # noqa: A002
    """Ranks of the masks of one image that pass the filter, ascending."""
    return _qualified(store, name, filter)[0]


def draw_object(
    store: ObjectStore,
    name: str,
    rng: np.random.Generator,
    *,
    filter: ObjectFilter,  # noqa: A002
    window: Box | None = None,
) -> Proposal | None:
    """One mask of an image at random, every qualified one alike; None when none qualifies.

    None too for an image that the store does not know: ``ObjectStore.missing`` finds those first.

    ``rng`` is used exactly once, or not at all when there is nothing to choose from. With a
    ``window`` (left, top, right, bottom in pixels of the image) only masks count whose box lies
    in it by half of its area or more: a mask that the crop has cut away cannot be pasted.

    Raises:
        UserError: if the store is damaged there.
    """
    if name not in store:
        return None
    ranks, proposals = _qualified(store, name, filter)
    if window is not None and ranks:
        inside = proposals.share_inside(window)
        ranks = [rank for rank in ranks if inside[rank] >= 0.5]
    if not ranks:
        return None
    return proposals[ranks[int(rng.integers(len(ranks)))]]


def _qualified(
    store: ObjectStore, name: str, settings: ObjectFilter
) -> tuple[list[int], ImageProposals]:
    proposals = store.proposals(name)
    confidence = settings.minimum_confidence
    if confidence is None:
        confidence = MINIMUM_CONFIDENCE.get(store.proposer, 0.97)
    first = FIRST.get(store.proposer, 11) if settings.first is None else settings.first
    share = proposals.share
    good = (share >= settings.minimum_area) & (share <= settings.maximum_area)
    good &= proposals.predicted_iou >= confidence
    return [int(rank) for rank in np.flatnonzero(good[:first])], proposals


def decode_window(
    proposal: Proposal, *, box: Box, size: tuple[int, int], blur: float = 0.0
) -> NDArray[np.bool_]:
    """The part of a mask inside a window of its image: cropped, resized, smoothed, cut at 0.5.

    ``box`` is the window (left, top, right, bottom) in pixels of the image; fractions are allowed,
    and it may stick out: outside the image nothing is set. ``blur`` is the standard deviation of
    the smoothing over the image's longer side (``ObjectFilter.blur``), so an outline is equally
    round at every zoom. Returns (H, W) = ``size`` bool.
    """
    left, top, right, bottom = box
    if not (right > left and bottom > top and min(size) > 0):
        raise UserError(f"window {box} to {size[0]}×{size[1]} pixels: empty; right > left needed")
    result = np.zeros(size, bool)
    zoom_x, zoom_y = size[1] / (right - left), size[0] / (bottom - top)
    deviation = blur * max(proposal.size)
    x, y, width, height = proposal.box
    columns = _span((x - left) * zoom_x, width * zoom_x, deviation * zoom_x, zoom_x, size[1])
    rows = _span((y - top) * zoom_y, height * zoom_y, deviation * zoom_y, zoom_y, size[0])
    if columns[0] >= columns[1] or rows[0] >= rows[1]:
        return result
    part = resample(
        decode_counts(proposal.counts, proposal.size),
        box=(
            left + columns[0] / zoom_x,
            top + rows[0] / zoom_y,
            left + columns[1] / zoom_x,
            top + rows[1] / zoom_y,
        ),
        size=(rows[1] - rows[0], columns[1] - columns[0]),
        deviation=(deviation * zoom_y, deviation * zoom_x),
    )
    result[rows[0] : rows[1], columns[0] : columns[1]] = part
    return result


def _span(start: float, length: float, deviation: float, zoom: float, end: int) -> tuple[int, int]:
    """Output pixels that the object's box may reach after resizing and smoothing."""
    reach = 3 * deviation + max(1.0, zoom) + 1
    return max(0, math.floor(start - reach)), min(end, math.ceil(start + length + reach))
