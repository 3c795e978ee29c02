"""Reads what Pillow leaves out of a PNG: the low bytes of colours, and late EXIF data."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from s5mars.products.errors import check_image_size
from s5mars.products.pillow import FORMATS, exif_orientation
from s5mars.products.raster import turned_array

_PROFILE = b"Raw profile type exif"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")


def has_exif(path: Path) -> bool:
    """Whether a PNG has EXIF data, also after its pixels; only the heads of its chunks are read."""
    with path.open("rb", buffering=0) as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            end = file.tell() + length + 4
            named = kind in _TEXTS and file.read(len(_PROFILE)) == _PROFILE
            if kind == b"eXIf" or named:
                return True
            file.seek(end)
    return False


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow would drop the low byte of each value silently."""
    # The last entry of a tile is Pillow's name for the pixel layout of the file.
    return image.mode != "I;16" and any(";16" in str(tile[3]) for tile in image.tile)


def decode_deep(image: ImageFile.ImageFile) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Decode several channels of 16 bits with Pillow, one byte at a time."""
    (tile,) = image.tile
    grey = tile[3] == "LA;16B"
    # If the values are read as little-endian, Pillow drops the high byte instead.
    first, second = ("RGBA", None) if grey else (tile[3], str(tile[3]).replace("16B", "16L"))
    check_image_size(
        image.filename, width=image.width, height=image.height,
        bytes_per_pixel=4 if grey else 2 * len(image.getbands()),
    )  # fmt: skip
    transparent = image.info.get("transparency")
    halves, orientation = [], 1
    for raw in (first, second):
        if raw is not None:
            with Image.open(image.filename, formats=FORMATS) as half:
                half.tile = [tile._replace(args=raw)]
                half.load()
                halves.append(np.asarray(half))
                orientation = exif_orientation(half)
    if grey:
        (whole,) = halves
        halves = [whole[..., 0::2], whole[..., 1::2]]
    values = halves[0].astype(np.uint16) << 8 | halves[1]
    values = turned_array(values, orientation)
    opaque = None
    if values.shape[2] in (2, 4):
        opaque = values[..., -1] != 0
    elif transparent is not None:
        opaque = (values != np.array(transparent)).any(-1)
    values = values[..., 0] if grey else values[..., :3]
    return values, None if opaque is None or opaque.all() else opaque
