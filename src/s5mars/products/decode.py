"""Decodes JPEG, PNG, TIFF and similar images and masks to pixel values.

The EXIF orientation is applied. Fully transparent pixels, and pixels with GDAL's no-data value, are
not valid.
"""

from __future__ import annotations

import logging
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from s5mars.errors import REMEDY, DamagedFileError, UserError
from s5mars.files.reading import reading
from s5mars.products.errors import check_image_size, too_large
from s5mars.products.raster import Raster, valid_values
from s5mars.products.segments import check_segments
from s5mars.text.numbers import plural

# Panoramas are large; `check_image_size` has its own limits.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
# Damage is reported by the error; the libraries would also log it.
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")
for _library in ("tifffile", "PIL.TiffImagePlugin"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)

# Not all formats of Pillow, because it runs other programs for some.
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION, _GDAL_NODATA = 0x0112, 42113
_PNG_PROFILE = b"Raw profile type exif"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_EXIF = {"exif", _PNG_PROFILE.decode()}
_NO_PAGE = 0b101  # overviews and transparency masks

_BILEVEL = ((0, 0, 0), (255, 255, 255))

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
        if image is None or _is_deep(image):
            return None
        turned = _turned(image)
        if _opaque(turned) is not None:
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
            return _tiff(path)
        if _is_deep_png(image):
            return Raster(*_deep_png(image))
        turned = _turned(image)
        return Raster(_values(turned), _opaque(turned))


def decode_mask(path: Path) -> MaskFile:
    """Decode the ids of a mask file; raises as ``decode``."""
    with _opened(path) as image:
        if image is None:
            raster = _tiff(path, mask=True)
            return MaskFile(raster.values, raster.valid, lossy=False, palette=_tiff_palette(path))
        lossy = image.format in ("JPEG", "MPO", "WEBP")
        if _is_deep_png(image):
            return MaskFile(*_deep_png(image), lossy)
        step, turned = _step(image), _turned(image)
        return MaskFile(_ids(turned, step), _opaque(turned), lossy, palette=_palette(turned))


def head_size(path: Path) -> tuple[tuple[int, int], int]:
    """(width, height) of the decoded image and its EXIF orientation; reads only the header.

    Raises:
        MissingFileError, DamagedFileError: as ``decode``.
    """
    with reading(path, kind="image"):
        if _is_tiff(path):
            import tifffile

            with tifffile.TiffFile(path) as file:
                page: Any = file.pages.first
                size, orientation = (page.imagewidth, page.imagelength), _tag(page, _ORIENTATION, 1)
        else:
            with _head(path) as image:
                if image.format == "PNG" and not _EXIF & image.info.keys() and _has_exif(path):
                    image.load()
                size, orientation = image.size, _orientation(image)
    return (size[::-1] if orientation in (5, 6, 7, 8) else size), orientation


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile | None]:
    """Yield the image before its pixels are loaded; None if it is a TIFF."""
    with reading(path, kind="image"):
        if _is_tiff(path):
            yield None
            return
        with _head(path) as image:
            yield image


@contextmanager
def _head(path: Path) -> Iterator[ImageFile.ImageFile]:
    try:
        opened = Image.open(path, formats=_FORMATS)
    except UnidentifiedImageError:
        raise DamagedFileError(f"{path} is not an image: {REMEDY}") from None
    except Image.DecompressionBombError:
        raise too_large(path, "more than") from None
    with opened as image:
        check_image_size(path, width=image.width, height=image.height)
        if isinstance(transparent := image.info.get("transparency"), int):
            image.info["transparency"] = transparent * _step(image)
        yield image


def _step(image: ImageFile.ImageFile) -> int:
    """By what Pillow multiplies the values of the file: grey of 2 or 4 bits fills 0..255."""
    # The last entry of a tile is Pillow's name for the pixel layout of the file, alone or first.
    layout = str(image.tile[0][3]) if image.tile else ""
    found = re.match(r"\W*L;([24])(?!\d)", layout)
    return 1 if found is None else 255 // (2 ** int(found[1]) - 1)


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise DamagedFileError(f"{path} is empty (0 bytes): {REMEDY}")
    return start in _TIFF_MAGIC


def _has_exif(path: Path) -> bool:
    """Whether a PNG has EXIF data, also after its pixels; only the heads of its chunks are read."""
    with path.open("rb", buffering=0) as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            end = file.tell() + length + 4
            named = kind in _PNG_TEXTS and file.read(len(_PNG_PROFILE)) == _PNG_PROFILE
            if kind == b"eXIf" or named:
                return True
            file.seek(end)
    return False


def _orientation(image: Image.Image) -> int:
    # A PNG may store it after its pixels; before they are loaded, getexif() would load them.
    if image.format == "PNG" and not _EXIF & image.info.keys():
        return 1
    with suppress(Exception):  # damaged EXIF data are ignored
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1


def _turned(image: Image.Image) -> Image.Image:
    image.load()
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _values(image: Image.Image) -> NDArray[Any]:
    """(H, W) or (H, W, 3); alpha is dropped, a palette applied."""
    if image.mode in ("L", "RGB", "F") or image.mode.startswith("I"):
        return np.asarray(image)
    return np.asarray(image.convert("L" if image.mode in ("1", "LA", "La") else "RGB"))


def _ids(image: Image.Image, step: int) -> NDArray[Any]:
    """The values of a mask as stored: indices of a palette, 0 and 1 of a bilevel image."""
    if image.mode == "P":
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    return _values(image) // step if step > 1 else _values(image)


def _opaque(image: Image.Image) -> NDArray[np.bool_] | None:
    """False where alpha (a channel, palette entry or colour value) is 0; None: nowhere."""
    if not image.has_transparency_data:
        return None
    if image.mode.startswith("I"):
        opaque = np.asarray(image) != image.info["transparency"]
    else:
        opaque = np.asarray(image.convert("RGBA").getchannel("A")) != 0
    return None if opaque.all() else opaque


def _is_deep(image: ImageFile.ImageFile) -> bool:
    return image.mode == "F" or image.mode.startswith("I") or _is_deep_png(image)


def _is_deep_png(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow would drop the low byte of each value silently."""
    # The last entry of a tile is Pillow's name for the pixel layout of the file.
    return image.mode != "I;16" and any(";16" in str(tile[3]) for tile in image.tile)


def _deep_png(image: ImageFile.ImageFile) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
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
            with Image.open(image.filename, formats=_FORMATS) as half:
                half.tile = [tile._replace(args=raw)]
                half.load()
                halves.append(np.asarray(half))
                orientation = _orientation(half)
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


def turned_array(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(H, W, ...) values turned as an EXIF orientation (1..8) says."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values[::-1] if orientation in (3, 4, 7, 8) else values


def _tiff(path: Path, *, mask: bool = False) -> Raster:
    """Decode a TIFF with tifffile, which keeps all bits, or else with Pillow.

    With ``mask``, the values are ids: palettes are not applied, and set bits are 1.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        every: list[Any] = list(file.pages)
        pages = [page for page in every if not page.subfiletype & _NO_PAGE]
        if len(pages) > 1:
            raise UserError(
                f"{path} has {len(pages)} pages, but one is needed: write each to its own file"
            )
        page = pages[0] if pages else every[0]
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
                return _by_pillow(path, missing, mask=mask)
            return _without_alpha(turned_array(values, _tag(page, _ORIENTATION, 1)), page, missing)
        return _by_pillow(path, missing, mask=mask)


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


def _palette(image: Image.Image) -> NDArray[np.uint8] | None:
    if image.mode == "1":
        return np.array(_BILEVEL, np.uint8)
    if image.mode != "P":
        return None
    return np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)


def _tiff_palette(path: Path) -> NDArray[np.uint8] | None:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page: Any = file.pages.first
        if page.dtype == bool:
            return np.array(_BILEVEL, np.uint8)
        if page.photometric != 3 or page.colormap is None:
            return None
        return np.asarray(page.colormap >> 8, np.uint8).T


def _by_pillow(path: Path, missing: tuple[float, ...], *, mask: bool) -> Raster:
    with _head(path) as image:
        step = _step(image)
        image.load()  # this also applies the orientation of a TIFF
        values, opaque = _ids(image, step) if mask else _values(image), _opaque(image)
    valid = valid_values(values, missing=missing)
    return Raster(values, _both(opaque, valid))


def _without_alpha(values: NDArray[Any], page: Any, missing: tuple[float, ...]) -> Raster:
    opaque = None
    if values.shape[2] in (2, 4) and set(page.extrasamples) & {1, 2}:
        opaque = values[..., -1] != 0
    values = values[..., 0] if values.shape[2] < 3 else values[..., :3]
    return Raster(values, _both(opaque, valid_values(values, missing=missing)))


def _both(
    one: NDArray[np.bool_] | None, other: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    both = one if other is None else other if one is None else one & other
    return None if both is None or both.all() else both


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
