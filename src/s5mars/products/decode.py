"""Decodes JPEG, PNG, TIFF and similar images and masks to pixel values.

The EXIF orientation is applied. Fully transparent pixels, and pixels with GDAL's no-data value, are
not valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from s5mars.files.reading import reading
from s5mars.products.pillow import (
    EXIF,
    exif_orientation,
    ids_of,
    opaque_pixels,
    opened_head,
    palette_of,
    turned_image,
    value_step,
    values_of,
)
from s5mars.products.png import decode_deep, has_exif, is_deep
from s5mars.products.raster import SWAPPED, Raster
from s5mars.products.tiff import decode_tiff, is_tiff, size_and_orientation, tiff_palette


@dataclass(frozen=True)
class MaskFile:
    """The ids in a mask file."""

    ids: NDArray[Any]  # (H, W) or (H, W, 3); indices if the file has a palette
    valid: NDArray[np.bool_] | None  # (H, W), False where transparent or no data; None: all valid
    lossy: bool  # the compression may have changed ids
    palette: NDArray[np.uint8] | None = None  # (N, 3) colours of the ids; black beyond them

    @property
    def colours(self) -> NDArray[Any]:
        """(H, W) or (H, W, 3): the ids with their palette applied, if there is one."""
        if self.palette is None:
            return self.ids
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.palette)] = self.palette
        return np.asarray(table[self.ids])


def plain_image(path: Path) -> Image.Image | None:
    """Decode an 8-bit image to mode RGB; None if it needs ``decode``.

    Raises:
        MissingFileError: if the file does not exist.
        DamagedFileError: if it is empty, truncated, not an image, or too large.
    """
    with _opened(path) as image:
        if image is None or _has_deep_values(image):
            return None
        turned = turned_image(image)
        if opaque_pixels(turned) is not None:
            return None
        turned.info.pop("transparency", None)  # avoids a warning that RGB cannot store it
        return turned if turned.mode == "RGB" else turned.convert("RGB")


def decode(path: Path) -> Raster:
    """Decode an image file to pixel values of full depth; palettes are applied.

    Raises:
        MissingFileError: if the file does not exist.
        DamagedFileError: if it is empty, truncated, not an image, too large, or has other than one
            or three channels.
        UserError: if it has several pages.
    """
    with _opened(path) as image:
        if image is None:
            return decode_tiff(path)
        if is_deep(image):
            return Raster(*decode_deep(image))
        turned = turned_image(image)
        opaque = opaque_pixels(turned)
        turned.info.pop("transparency", None)  # avoids a warning that RGB cannot store it
        return Raster(values_of(turned), opaque)


def decode_mask(path: Path) -> MaskFile:
    """Decode the ids of a mask file; raises as ``decode``."""
    with _opened(path) as image:
        if image is None:
            raster = decode_tiff(path, mask=True)
            return MaskFile(raster.values, raster.valid, lossy=False, palette=tiff_palette(path))
        lossy = image.format in ("JPEG", "MPO", "WEBP")
        if is_deep(image):
            return MaskFile(*decode_deep(image), lossy)
        step, turned = value_step(image), turned_image(image)
        return MaskFile(
            ids_of(turned, step), opaque_pixels(turned), lossy, palette=palette_of(turned)
        )


def head_size(path: Path) -> tuple[tuple[int, int], int]:
    """(width, height) of the decoded image and its EXIF orientation; reads only the header.

    Raises:
        MissingFileError, DamagedFileError: as ``decode``.
    """
    with reading(path, kind="image"):
        if is_tiff(path):
            size, orientation = size_and_orientation(path)
        else:
            with opened_head(path) as image:
                if image.format == "PNG" and not EXIF & image.info.keys() and has_exif(path):
                    image.load()
                size, orientation = image.size, exif_orientation(image)
    return (size[::-1] if orientation in SWAPPED else size), orientation


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile | None]:
    """Yield the image before its pixels are loaded; None if it is a TIFF."""
    with reading(path, kind="image"):
        if is_tiff(path):
            yield None
            return
        with opened_head(path) as image:
            yield image


def _has_deep_values(image: ImageFile.ImageFile) -> bool:
    return image.mode == "F" or image.mode.startswith("I") or is_deep(image)
