"""What all label tools have in common: images with labelled regions.

A reader of a format gives an ``Export``. Its entries are decoded one at a time, when they are
painted, so that a large export needs little memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from s5mars.classes import Colour
from s5mars.errors import UserError
from s5mars.files.reading import reading
from s5mars.products.decode import head_size

Size = tuple[int, int]
"""(width, height) in pixels."""

Note = str
"""Something that is not imported as it is, in one line that names the file."""

_Decoded = TypeVar("_Decoded")

MAX_JSON = 256 << 20
"""Bytes of one JSON or XML file of an export."""

REMEDY = "correct it in the label tool and export it again"


@dataclass(frozen=True)
class Region:
    """The pixels of one label."""

    label: str
    mask: NDArray[np.bool_]  # (h, w), a window of the image
    left: int = 0  # column and row of the window in the image; it may reach beyond the image
    top: int = 0
    cut: bool = False  # parts beyond the image are missing in the window


@dataclass(frozen=True)
class Entry:
    """One image of an export."""

    names: tuple[str, ...]  # by which the export may know it, the best one first
    source: Path  # file with its labels
    size: Size | None  # size that the labels were drawn on; None if the export does not tell
    regions: Callable[[Size], Iterable[Region | Note]]  # of that size, in the order of painting
    stems: tuple[str, ...] = ()  # names without the image's ending, which are better than others
    agreeing: bool = False  # no image is meant if names fit different ones


@dataclass(frozen=True)
class Export:
    """The labels of a tool."""

    title: str  # name of the format
    entries: Callable[[], Iterator[Entry | Note]]
    labels: Mapping[str, Colour | None] = field(default_factory=dict)  # known beforehand, in order
    files: frozenset[Path] = frozenset()  # pictures with labels, which are no images to label


@dataclass(frozen=True)
class Writer:
    """Writes the class maps of one format."""

    images: Path  # folder of the images
    result: Path  # what to give to the tool
    # Takes the file name of an image and its (H, W) class map, where 255 is no class.
    add: Callable[[str, NDArray[np.uint8]], None]


def attempt(source: Path, kind: str, make: Callable[[], _Decoded]) -> _Decoded | Note:
    """What ``make`` decodes, or a note on why it cannot be read.

    Args:
        source: the file that it comes from; whatever ``make`` raises is its fault.
        kind: what it is, such as ``"shape 3 (rock)"``.
        make: decodes it.
    """
    try:
        with reading(source, kind=kind, remedy=REMEDY):
            return make()
    except UserError as error:
        return str(error)


def mask_entry(
    names: tuple[str, ...],
    path: Path,
    regions: Callable[[Size], Iterable[Region | Note]],
    *,
    stems: tuple[str, ...] = (),
) -> Entry | Note:
    """The entry of a mask file, which has the size of its image."""
    return attempt(path, "mask", lambda: Entry(names, path, head_size(path)[0], regions, stems))
