"""Finds the black borders of an image, which hold no data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LEVEL = 12
"""A pixel is black if no channel exceeds this value: JPEG brightens borders a little."""

MINIMUM_SHARE = 0.001
"""A black component that covers a smaller share of the image is a shadow at the edge."""

PURE_LEVEL, PURE_SHARE = 2, 0.3
"""At least this share of a border is at most this bright; deep shadows are less pure."""

_STRIP = 512  # rows that are counted at a time, which bounds the memory


def no_data(
    image: NDArray[np.uint8], *, valid: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Find the black borders of an image.

    A pixel has no data if all its channels are at most ``LEVEL`` and such pixels connect it
    (4-neighbours) to the edge of the image. Components that are small (``MINIMUM_SHARE``) or not
    pure black (``PURE_LEVEL``, ``PURE_SHARE``) count as data: they are shadows that the edge cuts.
    The few grey pixels that JPEG leaves along a border are not found.

    Args:
        image: (H, W, 3) uint8.
        valid: (H, W) bool, False on pixels that are known to be missing, which are no part of a
            border: they are black, and would make one of a shadow beside them; None: all valid.

    Returns:
        (H, W) bool, True where a border has no data.
    """
    edges = (image[0], image[-1], image[:, 0], image[:, -1])
    if not any(_darker(edge, LEVEL).any() for edge in edges):
        return np.zeros(image.shape[:2], bool)
    # Imported here because it is slow to import, and most images have no black edge.
    from scipy import ndimage

    dark = _darker(image, LEVEL)
    components, count = ndimage.label(dark if valid is None else dark & valid)
    sizes, pure = np.zeros((2, count + 1), np.int64)
    # In strips, because bincount copies its input to 8 bytes a pixel.
    for top in range(0, len(image), _STRIP):
        strip = components[top : top + _STRIP]
        sizes += np.bincount(strip.ravel(), minlength=count + 1)
        black = _darker(image[top : top + _STRIP], PURE_LEVEL)
        pure += np.bincount(strip[black], minlength=count + 1)
    outer = (components[0], components[-1], components[:, 0], components[:, -1])
    border = np.zeros(count + 1, bool)
    border[np.concatenate(outer)] = True
    border &= (sizes >= MINIMUM_SHARE * components.size) & (pure >= PURE_SHARE * sizes)
    border[0] = False
    return np.asarray(border[components])


def empty_pixels(image: NDArray[np.uint8], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Find all pixels without data: black borders, and pixels that a product marks as missing.

    Args:
        image: (H, W, 3) uint8.
        valid: (H, W) bool as ``products.Product.valid``; None: all valid.

    Returns:
        (H, W) bool, True where there is no data.
    """
    border = no_data(image, valid=valid)
    return border if valid is None else border | ~valid


def has_black_edge(image: Image.Image) -> bool:
    """Whether ``no_data`` could find a border: a fast test that does not copy the image."""
    width, height = image.size
    strips = (
        (0, 0, width, 1), (0, height - 1, width, height),
        (0, 0, 1, height), (width - 1, 0, width, height),
    )  # fmt: skip
    pixels = (np.asarray(image.crop(strip)) for strip in strips)
    return any(bool(_darker(strip, LEVEL).any()) for strip in pixels)


def _darker(pixels: NDArray[np.uint8], level: int) -> NDArray[np.bool_]:
    # A reduction over the short last axis is many times slower than three comparisons.
    return (pixels[..., 0] <= level) & (pixels[..., 1] <= level) & (pixels[..., 2] <= level)
