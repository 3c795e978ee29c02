"""Resamples a window of a binary mask, reading only that part."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from s5mars.data.crops import Box
from s5mars.errors import UserError


def resample(
    mask: NDArray[np.uint8] | NDArray[np.bool_],
    *,
    box: Box,
    size: tuple[int, int],
    deviation: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.bool_]:
    """Crop a window of a mask, resize it, smooth it and threshold it at one half, in this order.

    ``mask`` is (H, W), zero or nonzero. ``box`` is (left, top, right, bottom) in its pixels; it may
    be fractional and extend beyond the mask, where the mask is False. Returns (h, w) = ``size``
    bool. ``deviation`` is the standard deviation (rows, columns) of a Gaussian in output pixels,
    approximated by three box filters; the edge of the output is repeated.
    """
    if mask.flags.f_contiguous and not mask.flags.c_contiguous:
        left, top, right, bottom = box
        turned = resample(
            mask.T,
            box=(top, left, bottom, right),
            size=(size[1], size[0]),
            deviation=(deviation[1], deviation[0]),
        )
        return turned.T
    left, top, right, bottom = box
    require_area(box, size)
    # The resampling filter reaches `reach` source pixels beyond the window.
    reach_x = math.ceil(max(1.0, (right - left) / size[1])) + 1
    reach_y = math.ceil(max(1.0, (bottom - top) / size[0])) + 1
    x0, x1 = math.floor(left) - reach_x, math.ceil(right) + reach_x
    y0, y1 = math.floor(top) - reach_y, math.ceil(bottom) + reach_y
    source = np.zeros((y1 - y0, x1 - x0), np.uint8)
    inner = mask[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    if inner.size:
        into_y, into_x = max(-y0, 0), max(-x0, 0)
        target = source[into_y : into_y + inner.shape[0], into_x : into_x + inner.shape[1]]
        np.multiply(inner, 255, out=target, casting="unsafe", dtype=np.uint8)
    image = Image.fromarray(source).resize(
        (size[1], size[0]),
        Image.Resampling.BILINEAR,
        box=(left - x0, top - y0, right - x0, bottom - y0),
    )
    if max(deviation) > 0:
        image = image.filter(ImageFilter.GaussianBlur((deviation[1], deviation[0])))
    cut: NDArray[np.bool_] = np.asarray(image) >= 128
    return cut


def require_area(box: Box, size: tuple[int, int]) -> None:
    """Raise a UserError if a window or its output (h, w) has no pixel."""
    left, top, right, bottom = box
    if not (right > left and bottom > top and min(size) > 0):
        raise UserError(f"the window {box} and the size {size[0]}×{size[1]} must not be empty")
