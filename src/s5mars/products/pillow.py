"""Opens images with Pillow, and reads their values, ids, transparency and EXIF orientation."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from s5mars.errors import REMEDY, DamagedFileError
from s5mars.products.errors import check_image_size, too_large

# Panoramas are large; `check_image_size` has its own limits.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

# Not all formats of Pillow, because it runs other programs for some.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
ORIENTATION = 0x0112  # the same tag in EXIF and in TIFF
EXIF = {"exif", "Raw profile type exif"}  # names of EXIF data in a PNG

BILEVEL = ((0, 0, 0), (255, 255, 255))

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextmanager
def opened_head(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Yield an image before its pixels are loaded.

    Raises:
        DamagedFileError: if the file is not an image, or too large.
    """
    try:
        opened = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        raise DamagedFileError(f"{path} is not an image: {REMEDY}") from None
    except Image.DecompressionBombError:
        raise too_large(path, "more than") from None
    with opened as image:
        check_image_size(path, width=image.width, height=image.height)
        if isinstance(transparent := image.info.get("transparency"), int):
            image.info["transparency"] = transparent * value_step(image)
        yield image


def value_step(image: ImageFile.ImageFile) -> int:
    """By what Pillow multiplies the values of the file: grey of 2 or 4 bits fills 0..255."""
    # The last entry of a tile is Pillow's name for the pixel layout of the file, alone or first.
    layout = str(image.tile[0][3]) if image.tile else ""
    found = re.match(r"\W*L;([24])(?!\d)", layout)
    return 1 if found is None else 255 // (2 ** int(found[1]) - 1)


def exif_orientation(image: Image.Image) -> int:
    """1..8; 1 if the image does not store it."""
    # A PNG may store it after its pixels; before they are loaded, getexif() would load them.
    if image.format == "PNG" and not EXIF & image.info.keys():
        return 1
    with suppress(Exception):  # damaged EXIF data are ignored
        return int(image.getexif().get(ORIENTATION, 1))
    return 1


def turned_image(image: Image.Image) -> Image.Image:
    """Load an image, and turn it as its EXIF orientation says."""
    image.load()
    turn = _TURNS.get(exif_orientation(image))
    return image if turn is None else image.transpose(turn)


def values_of(image: Image.Image) -> NDArray[Any]:
    """(H, W) or (H, W, 3); alpha is dropped, a palette applied."""
    if image.mode in ("L", "RGB", "F") or image.mode.startswith("I"):
        return np.asarray(image)
    return np.asarray(image.convert("L" if image.mode in ("1", "LA", "La") else "RGB"))


def ids_of(image: Image.Image, step: int) -> NDArray[Any]:
    """The values of a mask as stored: indices of a palette, 0 and 1 of a bilevel image."""
    if image.mode == "P":
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    return values_of(image) // step if step > 1 else values_of(image)


def opaque_pixels(image: Image.Image) -> NDArray[np.bool_] | None:
    """False where alpha (a channel, palette entry or colour value) is 0; None: nowhere."""
    if not image.has_transparency_data:
        return None
    if image.mode.startswith("I"):
        opaque = np.asarray(image) != image.info["transparency"]
    else:
        opaque = np.asarray(image.convert("RGBA").getchannel("A")) != 0
    return None if opaque.all() else opaque


def palette_of(image: Image.Image) -> NDArray[np.uint8] | None:
    """(N, 3): the colours of the ids of ``ids_of``; None if they have none."""
    if image.mode == "1":
        return np.array(BILEVEL, np.uint8)
    if image.mode != "P":
        return None
    return np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)
