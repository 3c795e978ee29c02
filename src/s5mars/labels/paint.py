"""From the regions of an image to its mask: what nobody painted is ignored, the later one wins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s5mars.classes import IGNORE
from s5mars.data.read import image_size
from s5mars.errors import UserError
from s5mars.files.reading import reading
from s5mars.labels.naming import Classes
from s5mars.labels.regions import REMEDY, Entry, Note, Region, Size
from s5mars.products.decode import head_size
from s5mars.products.files import IMAGE_ENDINGS
from s5mars.products.raster import SWAPPED, turned_array
from s5mars.text.numbers import plural


@dataclass(frozen=True)
class Painted:
    """The mask of an image."""

    labels: NDArray[np.uint8]  # (H, W) class index, 255 where not painted
    overlap: int  # pixels that were painted with one class and later with another
    notes: tuple[str, ...]  # what is not as in the export


def paint(entry: Entry, image: Path, classes: Classes) -> Painted:
    """Paint the regions of an entry.

    Raises:
        UserError: if the image cannot be read, or the labels were drawn on another size.
    """
    size = image_size(image)
    drawn_on, orientation = entry.size or size, 1
    if drawn_on != size:
        if image.suffix.lower() in IMAGE_ENDINGS:
            _, orientation = head_size(image)
        if orientation not in SWAPPED or drawn_on != size[::-1]:
            raise UserError(
                f"its labels were drawn on {drawn_on[0]}×{drawn_on[1]} pixels, but the image has "
                f"{size[0]}×{size[1]}; label this image, or give the images that were labelled"
            )
    labels = np.full(drawn_on[::-1], IGNORE, np.uint8)
    overlap = 0
    cut: Counter[str] = Counter()
    empty: Counter[str] = Counter()
    notes: list[str] = []
    for region in _readable(entry, drawn_on):
        if isinstance(region, Note):
            notes.append(region)
            continue
        if not region.label.strip():
            notes.append("a region without a label")
            continue
        covered, changed = _paint(labels, region, classes.index(region.label))
        overlap += changed
        if covered == 0:
            empty[region.label] += 1
        elif region.cut or covered < region.mask.sum():
            cut[region.label] += 1
    notes += [f"{_regions(cut)} beyond the image, and cut at its border"] if cut else []
    notes += [f"{_regions(empty)} without a pixel in the image"] if empty else []
    if orientation != 1:
        labels = turned_array(labels, orientation)
        notes.append(
            f"labels turned as the image's EXIF tag says (Orientation = {orientation}): they were "
            "drawn on the image as it is stored"
        )
    return Painted(np.ascontiguousarray(labels), overlap, tuple(notes))


def _readable(entry: Entry, size: Size) -> Iterator[Region | Note]:
    """The regions of an entry up to the first value that its reader does not expect."""
    try:
        with reading(entry.source, kind="labels", remedy=REMEDY):
            yield from entry.regions(size)
    except UserError as error:
        yield str(error)


def over(before: NDArray[np.uint8], after: Painted) -> Painted:
    """Two masks of one image, which stood twice in the export: the later one wins."""
    covered = after.labels != IGNORE
    changed = int(np.count_nonzero(covered & (before != IGNORE) & (before != after.labels)))
    labels = np.where(covered, after.labels, before)
    notes = (*after.notes, "occurs twice in the export; the later labels are used")
    return replace(after, labels=labels, overlap=after.overlap + changed, notes=notes)


def _paint(labels: NDArray[np.uint8], region: Region, index: int) -> tuple[int, int]:
    """Paint a region; return the number of its pixels in the image, and of those that it changed
    from another class."""
    (height, width), (rows, columns) = labels.shape, region.mask.shape
    top, left = max(0, region.top), max(0, region.left)
    bottom, right = min(height, region.top + rows), min(width, region.left + columns)
    if top >= bottom or left >= right:
        return 0, 0
    mask = region.mask[
        top - region.top : bottom - region.top, left - region.left : right - region.left
    ]
    window = labels[top:bottom, left:right]
    changed = int(np.count_nonzero(mask & (window != IGNORE) & (window != index)))
    window[mask] = index
    return int(np.count_nonzero(mask)), changed


def _regions(labels: Counter[str]) -> str:
    named = ", ".join(
        label if amount == 1 else f"{label} ({amount})" for label, amount in labels.items()
    )
    return f"{plural(labels.total(), 'region')} ({named})"
