"""Pixel values before the conversion to 8 bits, and which of them are valid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.products.info import ProductInfo

ISIS_LEAST = float(np.array(0xFF7FFFFA, np.uint32).view(np.float32))
"""Smallest valid float of ISIS; its special pixels (0xFF7FFFFB: null, then saturated) are below."""


@dataclass(frozen=True)
class Raster:
    """The values of a product and their metadata."""

    values: NDArray[Any]  # (H, W) or (H, W, 3), native byte order
    valid: NDArray[np.bool_] | None = None  # (H, W); None: all valid
    full_scale: int | None = None  # largest value that the label allows
    mosaic: str | None = None  # Bayer pattern; "" if the label says none; None: unknown
    info: ProductInfo = field(default_factory=ProductInfo)


def valid_values(
    values: NDArray[Any], *, missing: Iterable[float] = ()
) -> NDArray[np.bool_] | None:
    """Find the valid pixels: (H, W) bool, or None if all are valid.

    A pixel is not valid if a channel is NaN, infinite or a special pixel of ISIS, or if all
    channels equal one of the constants for missing values, of which those that the dtype cannot
    represent are ignored.
    """
    valid = np.ones(values.shape[:2], bool)
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # float16 has no special pixels
            good = np.isfinite(values) & (values >= ISIS_LEAST)
        valid &= good if good.ndim == 2 else good.all(-1)
    for constant in missing:
        with np.errstate(over="ignore", invalid="ignore"):
            held = np.asarray(constant).astype(values.dtype)
        # For floats the label may contain a rounded constant.
        if values.dtype.kind == "f" or held == constant:
            absent = values == held
            valid &= ~(absent if absent.ndim == 2 else absent.all(-1))
    return None if valid.all() else valid


SWAPPED = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""


def turned_array(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(H, W, ...) values turned as an EXIF orientation (1..8) says."""
    if orientation in SWAPPED:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values[::-1] if orientation in (3, 4, 7, 8) else values


def both_valid(
    one: NDArray[np.bool_] | None, other: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    """(H, W): where both masks are True; None stands for a mask without False."""
    both = one if other is None else other if one is None else one & other
    return None if both is None or both.all() else both
