"""Draws a random object of an image, and resamples it for one crop.

The filter is applied here and not when a store is built, so that one store serves all settings.
Only the drawn mask is decoded, and it is resized and smoothed only within the crop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s5mars.data.crops import Box
from s5mars.data.read import image_size
from s5mars.errors import UserError
from s5mars.proposals.proposal import Proposal, decode_counts
from s5mars.proposals.store import ImageProposals, ObjectStore
from s5mars.proposals.window import require_area, resample
from s5mars.types import Sample

MINIMUM_CONFIDENCE = {"graph": 0.4}
"""Default of ``ObjectFilter.minimum_confidence`` per proposer; 0.97 for all others.

The predicted IoU of SAM, for which 0.97 was chosen, and the stability of graph regions have
different scales: about 25 graph regions of a rover image reach 0.4, and hardly any reach 0.97.
"""

FIRST = {"graph": 40}
"""Default of ``ObjectFilter.first`` per proposer; 11 for all others."""


@dataclass(frozen=True, kw_only=True)
class ObjectFilter:
    """Which masks may be pasted. The defaults are those of the released code for 1200² images."""

    minimum_area: float = 1700 / 1200**2  # share of the image, inclusive
    maximum_area: float = 512**2 / 1200**2  # share of the image, inclusive
    minimum_confidence: float | None = None  # predicted IoU; None: see MINIMUM_CONFIDENCE
    first: int | None = None  # only the first masks of the list; None: see FIRST
    blur: float = 5 / 1200  # standard deviation of the smoothing / longer side

    def __post_init__(self) -> None:
        if not 0 <= self.minimum_area <= self.maximum_area <= 1:
            raise UserError(
                "object areas must satisfy 0 <= minimum <= maximum <= 1, as shares of the image "
                f"(got {self.minimum_area} and {self.maximum_area})"
            )
        if self.minimum_confidence is not None and not 0 <= self.minimum_confidence <= 1:
            raise UserError(
                f"the minimum confidence must be from 0 to 1 (got {self.minimum_confidence})"
            )
        if (self.first is not None and self.first < 1) or self.blur < 0:
            raise UserError(f"first must be >= 1 and blur >= 0 (got {self.first} and {self.blur})")


@dataclass(frozen=True)
class Coverage:
    """Number of images with a mask to draw; random rectangles are used for the others."""

    images: int
    unknown: tuple[str, ...] = ()  # names that are not in the store
    empty: tuple[str, ...] = ()  # names without any mask
    unqualified: tuple[str, ...] = ()  # names without a mask that passes the filter

    @property
    def without(self) -> int:
        """Number of images for which rectangles are used."""
        return len(self.unknown) + len(self.empty) + len(self.unqualified)

    @property
    def sentence(self) -> str:
        """For messages and reports; "" if every image has a qualified mask."""
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
    samples: Sequence[Sample],
    *,
    filter: ObjectFilter,  # noqa: A002
) -> Coverage:
    """Find which images have a mask to draw; reads only the sizes of the images.

    Raises:
        UserError: if the store has none of the images, masks and their image differ in size, or
            the store is damaged.
        MissingFileError: if an image does not exist.
    """
    names = [sample.name for sample in samples]
    if len(store.missing(names)) == len(names):
        store.check(names)
    unknown, empty, unqualified, wrong = [], [], [], []
    for sample in samples:
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
            f"{store.path}: the masks of {len(wrong)} of {len(names)} images have another size "
            f"than their image, such as {sample.name}: {_wrong_size(masks, size)}"
        )
    return Coverage(len(names), tuple(unknown), tuple(empty), tuple(unqualified))


def check_size(proposal: Proposal, sample: Sample, size: tuple[int, int]) -> None:
    """Raise a UserError if a mask has another size than its image, (H, W) = ``size``."""
    if proposal.size != size:
        raise UserError(f"{sample.image}: {_wrong_size(proposal.size, size)}")


def _wrong_size(masks: tuple[int, int], image: tuple[int, int]) -> str:
    return (
        f"object masks have {masks[1]}×{masks[0]} pixels, but the image has {image[1]}×{image[0]}: "
        "make or import the masks of these images"
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
    """Draw one qualified mask of an image uniformly; None if there is none.

    Also None if the image is not in the store; find those with ``ObjectStore.missing``. ``rng`` is
    used once, or not at all if there is no mask. With a ``window`` (left, top, right, bottom in
    pixels of the image) only masks with at least half of their box inside it are drawn, because a
    mask outside the crop cannot be pasted.

    Raises:
        UserError: if this part of the store is damaged.
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
    """Crop a mask to a window of its image, resize, smooth and threshold it at 0.5.

    ``box`` is the window (left, top, right, bottom) in pixels of the image. It may be fractional
    and extend beyond the image, where the mask is False. ``blur`` is the standard deviation of the
    smoothing / the longer side of the image (``ObjectFilter.blur``), so outlines are equally round
    at every zoom. Returns (H, W) = ``size`` bool.
    """
    left, top, right, bottom = box
    require_area(box, size)
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
    """Range of output pixels that the box of the object may reach after smoothing."""
    reach = 3 * deviation + max(1.0, zoom) + 1
    return max(0, math.floor(start - reach)), min(end, math.ceil(start + length + reach))
