"""An image as the label page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s5mars.errors import UserError
from s5mars.products import open_product
from s5mars.products.no_data import empty_pixels

LARGEST = 40_000_000
"""Pixels of an image that browsers can still paint on."""


@dataclass(frozen=True)
class Picture:
    """An image as it is shown."""

    image: NDArray[np.uint8]  # (H, W, 3)
    valid: NDArray[np.bool_]  # (H, W)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.image.shape[0], self.image.shape[1]


def read_picture(path: Path) -> Picture:
    """Read an image.

    Raises:
        UserError: if it cannot be read, or is too large to be painted.
    """
    product = open_product(path)
    height, width = product.image.shape[:2]
    if height * width > LARGEST:
        raise UserError(
            f"{path}: {width}×{height} pixels are more than a browser can paint on "
            f"({LARGEST // 10**6} million); cut it into tiles"
        )
    return Picture(product.image, ~empty_pixels(product.image, product.valid))
