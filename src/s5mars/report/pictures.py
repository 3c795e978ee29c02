"""Encode arrays as images that are embedded in the page."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from s5mars.classes import IGNORE, Taxonomy, hex_colour
from s5mars.data.resolution import fitted
from s5mars.files import encoded_picture

SIDE = 448
"""Maximum length of the longer side of a picture in pixels."""

_DARK, _LESS_DARK = (38, 38, 42), (74, 74, 80)
_WRONG = (255, 45, 120)  # in no palette of classes, and absent from images of Mars
_STRIPE = 6  # width of a stripe in pixels of the drawn image
_WIDEST = 5  # panels in a row; more would be too small


@dataclass(frozen=True)
class Panel:
    """One picture and its caption."""

    label: str
    uri: Markup
    text: str = ""


@dataclass(frozen=True)
class Shown:
    """One image of the data set with its panels."""

    name: str
    text: str
    panels: Sequence[Panel]

    @property
    def columns(self) -> int:
        """Number of panels in a row on a wide screen: at most five, in rows of equal length."""
        rows = math.ceil(len(self.panels) / _WIDEST)
        return math.ceil(len(self.panels) / rows)


def legend(taxonomy: Taxonomy) -> list[dict[str, str]]:
    """Name, colour and criterion of every class, for templates."""
    return [
        {"name": c.name, "colour": hex_colour(c.colour), "criterion": c.criterion}
        for c in taxonomy.classes
    ]


def photograph(image: NDArray[np.uint8], *, side: int = SIDE) -> Markup:
    """Encode an (H, W, 3) uint8 image as a JPEG data URI of at most ``side`` pixels a side."""
    return _uri(shrunk(image, side=side), ".jpg", quality=85)


def shrunk(image: NDArray[np.uint8], *, side: int = SIDE) -> Image.Image:
    """Shrink an (H, W, 3) uint8 image so that its longer side is at most ``side`` pixels."""
    picture = Image.fromarray(image)
    return picture.resize(fitted(*picture.size, side), Image.Resampling.LANCZOS)


def class_map(labels: NDArray[np.uint8], taxonomy: Taxonomy, *, side: int = SIDE) -> Markup:
    """Encode an (H, W) uint8 class map as an indexed PNG data URI; ``IGNORE`` is hatched."""
    return _uri(class_picture(labels, taxonomy, side=side), ".png", optimize=True)


def class_picture(
    labels: NDArray[np.uint8], taxonomy: Taxonomy, *, side: int = SIDE
) -> Image.Image:
    """Draw an (H, W) uint8 class map as an image of mode P; ``IGNORE`` is hatched in grey."""
    picture = Image.fromarray(labels)
    small = np.array(picture.resize(fitted(*picture.size, side), Image.Resampling.NEAREST))
    rows, columns = np.indices(small.shape)
    light_stripe = ((rows + columns) // _STRIPE) % 2 == 1
    # The hatching uses the two highest indices, which no class has.
    small[(small == IGNORE) & light_stripe] = IGNORE - 1
    palette = taxonomy.palette
    palette[3 * (IGNORE - 1) :] = [*_LESS_DARK, *_DARK]
    indexed = Image.fromarray(small)
    indexed.putpalette(palette)
    return indexed


def is_wrong(truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(H, W) bool: where the predicted class is not the true one; never at ``IGNORE`` of either."""
    wrong: NDArray[np.bool_] = (truth != IGNORE) & (truth != predicted) & (predicted != IGNORE)
    return wrong


def wrong_pixels(image: NDArray[np.uint8], wrong: NDArray[np.bool_]) -> Markup:
    """Encode an image in dim grey as a JPEG data URI, with wrong pixels in a bright colour.

    Args:
        image: (H, W, 3) uint8.
        wrong: (H, W) bool.
    """
    grey = Image.fromarray(image).convert("L")
    size = fitted(*grey.size, SIDE)
    background = np.array(grey.resize(size, Image.Resampling.BILINEAR)).astype(np.float32) / 255
    # A box filter keeps thin borders visible, which nearest-neighbour sampling would lose.
    amount = Image.fromarray(wrong.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    weight = 0.85 * np.array(amount).astype(np.float32)[..., None] / 255
    mixed = (1 - weight) * (40 + 120 * background[..., None]) + weight * np.array(_WRONG)
    return _uri(Image.fromarray(mixed.round().astype(np.uint8)), ".jpg", quality=80)


def _uri(picture: Image.Image, ending: str, **options: object) -> Markup:
    content = base64.b64encode(encoded_picture(picture, ending, **options)).decode()
    return Markup(f"data:{Image.MIME[Image.EXTENSION[ending]]};base64,{content}")
