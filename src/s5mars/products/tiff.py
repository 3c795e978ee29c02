"""Decodes TIFF files with tifffile, which keeps all bits, or else with Pillow."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.errors import REMEDY, DamagedFileError, UserError
from s5mars.products.errors import check_image_size
from s5mars.products.pillow import (
    BILEVEL,
    ORIENTATION,
    ids_of,
    opaque_pixels,
    opened_head,
    value_step,
    values_of,
)
from s5mars.products.raster import Raster, both_valid, turned_array, valid_values
from s5mars.products.segments import check_segments
from s5mars.text.numbers import plural

# Damage is reported by the error; the libraries would also log it.
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")
for _library in ("tifffile", "PIL.TiffImagePlugin"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GDAL_NODATA = 42113
_NO_PAGE = 0b101  # overviews and transparency masks


def is_tiff(path: Path) -> bool:
    """Whether a file begins as a TIFF does.

    Raises:
        DamagedFileError: if it is empty.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise DamagedFileError(f"{path} is empty (0 bytes): {REMEDY}")
    return start in _MAGIC


def size_and_orientation(path: Path) -> tuple[tuple[int, int], int]:
    """(width, height) before it is turned, and the EXIF orientation; reads only the header."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = _pages(file)[0]
        return (page.imagewidth, page.imagelength), _tag(page, ORIENTATION, 1)


def decode_tiff(path: Path, *, mask: bool = False) -> Raster:
    """Decode a TIFF with tifffile, which keeps all bits, or else with Pillow.

    With ``mask``, the values are ids: palettes are not applied, and set bits are 1.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        page, *others = _pages(file)
        if others:
            raise UserError(
                f"{path} has {1 + len(others)} pages, but one is needed: write each to its own file"
            )
        kind = page.dtype
        check_image_size(
            path, width=page.imagewidth, height=page.imagelength,
            bytes_per_pixel=page.samplesperpixel * (1 if kind is None else kind.itemsize),
        )  # fmt: skip
        if page.samplesperpixel > 4:
            raise DamagedFileError(
                f"{path} has {page.samplesperpixel} channels, but 1 or 3 are needed: leave it out"
            )
        if kind is not None and kind.kind == "c":
            raise DamagedFileError(
                f"{path} has complex numbers ({kind}), but real ones are needed: leave it out"
            )
        missing = _no_data_value(page)
        few_bits = page.samplesperpixel == 1 and page.bitspersample in (2, 4)
        # Pillow decodes the others (palettes, YCbCr, ...).
        if page.photometric in ((0, 1, 2, 3) if mask else (0, 1, 2)) and not few_bits:
            check_segments(path, page)
            try:
                values = _arranged(page.asarray(), page, white=1 if mask else 255)
            except Exception as error:
                if "imagecodecs" not in str(error):  # tifffile has few codecs of its own
                    raise
                if not _keeps_all_bits(page):
                    raise UserError(
                        f"{path} cannot be read without the package imagecodecs "
                        f"({_described(page)}): run `pip install imagecodecs`, or write the file "
                        "without compression"
                    ) from None
                return _by_pillow(path, page.index, missing, mask=mask)
            return _without_alpha(turned_array(values, _tag(page, ORIENTATION, 1)), page, missing)
        return _by_pillow(path, page.index, missing, mask=mask)


def tiff_palette(path: Path) -> NDArray[np.uint8] | None:
    """(N, 3): the colours of the ids of a mask; None if they have none."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = _pages(file)[0]
        if page.dtype == bool:
            return np.array(BILEVEL, np.uint8)
        if page.photometric != 3 or page.colormap is None:
            return None
        return np.asarray(page.colormap >> 8, np.uint8).T


def _pages(file: Any) -> list[Any]:
    """The pages of a file without overviews and transparency masks, which may come first."""
    every = list(file.pages)
    return [page for page in every if not page.subfiletype & _NO_PAGE] or every[:1]


def _keeps_all_bits(page: Any) -> bool:
    """Whether Pillow reads the values exactly; it reduces others to 8 bits, or inverts them."""
    if page.bitspersample <= 8:
        return True
    plain = page.photometric == 1 and page.samplesperpixel == 1
    return bool(plain and page.dtype in ("u2", "i4", "f4"))


def _described(page: Any) -> str:
    """Such as ``"3 channels of 16 bits with LZW"``."""
    channels = plural(page.samplesperpixel, "channel")
    compression = getattr(page.compression, "name", page.compression)
    return f"{channels} of {page.bitspersample} bits with {compression}"


def _by_pillow(path: Path, page: int, missing: tuple[float, ...], *, mask: bool) -> Raster:
    with opened_head(path) as image:
        image.seek(page)
        step = value_step(image)
        # Without a name Pillow does not map the file, which it does with the sides of the turned
        # image: an uncompressed one of another orientation would be garbled.
        image.filename = ""
        image.load()  # this also applies the orientation of a TIFF
        values, opaque = ids_of(image, step) if mask else values_of(image), opaque_pixels(image)
    valid = valid_values(values, missing=missing)
    return Raster(values, both_valid(opaque, valid))


def _without_alpha(values: NDArray[Any], page: Any, missing: tuple[float, ...]) -> Raster:
    opaque = None
    if values.shape[2] in (2, 4) and set(page.extrasamples) & {1, 2}:
        opaque = values[..., -1] != 0
    values = values[..., 0] if values.shape[2] < 3 else values[..., :3]
    return Raster(values, both_valid(opaque, valid_values(values, missing=missing)))


def _arranged(values: NDArray[Any], page: Any, *, white: int) -> NDArray[Any]:
    """Arrange values of tifffile as (H, W, C) with 0 = black; set bits become ``white``."""
    if page.planarconfig == 2 and values.ndim == 3:
        values = np.moveaxis(values, 0, -1)
    values = values.reshape(page.imagelength, page.imagewidth, -1)
    if values.dtype == bool:
        return (~values if page.photometric == 0 else values) * np.uint8(white)
    if page.photometric == 0 and values.dtype.kind == "u":
        values = np.iinfo(values.dtype).max - values
    return values


def _no_data_value(page: Any) -> tuple[float, ...]:
    try:
        return (float(str(_tag(page, _GDAL_NODATA, "")).strip(" \0")),)
    except ValueError:
        return ()


def _tag(page: Any, number: int, default: Any) -> Any:
    tag = page.tags.get(number)
    return default if tag is None else tag.value
