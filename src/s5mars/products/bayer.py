"""Colour from a Bayer mosaic by bilinear interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")
"""Colours of the pixels (0, 0), (0, 1), (1, 0), (1, 1); it repeats."""


def debayer(
    mosaic: NDArray[Any], *, pattern: str = "RGGB", valid: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Interpolate the two missing colours of every pixel.

    A colour that was measured stays as it is. A missing one is the mean of the nearest valid
    measurements of it (2 or 4 of the 8 neighbours; fewer at the border). Pixels that are not
    valid lend nothing; a pixel without any valid neighbour of a colour gets 0 there.

    Args:
        mosaic: (H, W), any numeric dtype.
        pattern: one of ``PATTERNS``.
        valid: (H, W) bool; None: all are.

    Returns:
        (H, W, 3) float32, RGB.

    Raises:
        ValueError: if the pattern is unknown.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"Bayer pattern {pattern!r}: choose from {', '.join(PATTERNS)}")
    values = mosaic.astype(np.float32)
    lent = np.ones(values.shape, bool) if valid is None else valid
    colour = np.empty((*values.shape, 3), np.float32)
    for channel, letter in enumerate("RGB"):
        here = np.zeros(values.shape, bool)
        for place, each in enumerate(pattern):
            if each == letter:
                here[place // 2 :: 2, place % 2 :: 2] = True
        weight = (here & lent).astype(np.float32)
        # The usual bilinear kernel; divided by the weights that were there, it is a mean.
        total, count = _smooth(np.where(weight > 0, values, 0)), _smooth(weight)
        mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
        colour[..., channel] = np.where(here, values, mean)
    return colour


def _smooth(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Correlate with the outer product of (1, 2, 1) and itself; zeros lie outside."""
    padded = np.pad(plane, 1)
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    smooth: NDArray[np.float32] = rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]
    return smooth
