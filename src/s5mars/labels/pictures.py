"""Small pictures inside label files: PNGs in base64."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from s5mars.files import encoded_picture
from s5mars.products.errors import check_image_size


def from_base64(text: object) -> NDArray[np.bool_]:
    """(H, W) bool of a PNG: where it is not 0; where it has transparent pixels, all others.

    Raises:
        ValueError, OSError: if it is no such picture.
        DamagedFileError: if it declares a huge size.
    """
    if not isinstance(text, str):
        raise ValueError("the mask is not a PNG in base64")
    data = io.BytesIO(base64.b64decode(text, validate=True))
    try:
        opened = Image.open(data, formats=("PNG",))
    except UnidentifiedImageError:
        raise ValueError("the mask is not a PNG in base64") from None
    with opened as png:
        check_image_size("the mask", width=png.width, height=png.height)
        if png.has_transparency_data:
            alpha = np.asarray(png.convert("RGBA").getchannel("A"))
            return np.asarray(alpha != 0)
        return np.asarray(np.asarray(png.convert("L")) != 0)


def to_base64(mask: NDArray[np.bool_]) -> str:
    """A (H, W) mask as a PNG of 0 and 1, in base64."""
    png = encoded_picture(Image.fromarray(mask.astype(np.uint8)), ".png")
    return base64.b64encode(png).decode("ascii")
