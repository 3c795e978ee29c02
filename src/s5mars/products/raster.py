"""The values of a file before they become 8 bits, and which of them are none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.products.info import ProductInfo

ISIS_LEAST = -3.4028226550889045e38
"""Below this least valid value of ISIS lie its special pixels (null, saturated), as floats."""


@dataclass(frozen=True)
class Raster:
    """The values of a product with what its file says of them."""

    values: NDArray[Any]  # (H, W) or (H, W, 3), native byte order
    valid: NDArray[np.bool_] | None = None  # (H, W); None: all are
    full_scale: int | None = None  # largest value that the label allows
    mosaic: str | None = None  # Bayer pattern; "" where the label says that it is none; None: open
    info: ProductInfo = field(default_factory=ProductInfo)


def valid_values(
    values: NDArray[Any], *, missing: Iterable[float] = ()
) -> NDArray[np.bool_] | None:
    """Where an image has data: (H, W) bool, or None for everywhere.

    A pixel has none where a channel is NaN, infinite or a special pixel of ISIS, or all channels
    are one of the constants.

    Args:
        values: (H, W) or (H, W, C).
        missing: constants that stand for missing values; what the dtype cannot hold is nowhere.
    """
    valid = np.ones(values.shape[:2], bool)
    if values.dtype.kind == "f":
        good = np.isfinite(values) & (values >= ISIS_LEAST)
        valid &= good if good.ndim == 2 else good.all(-1)
    for constant in missing:
        with np.errstate(over="ignore", invalid="ignore"):
            held = np.asarray(constant).astype(values.dtype)
        # A float that a label rounded still means the value that its data hold.
        if values.dtype.kind == "f" or held == constant:
            absent = values == held
            valid &= ~(absent if absent.ndim == 2 else absent.all(-1))
    return None if valid.all() else valid
