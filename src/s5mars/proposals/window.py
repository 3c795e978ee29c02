"""Resampling a part of a binary mask, touching only that part."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from s5mars.errors import UserError

Box = tuple[float, float, float, float]


def resample(
    mask: NDArray[np.uint8] | NDArray[np.bool_],
    *,
    box: Box,
    size: tuple[int, int],
    deviation: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.bool_]:
    """Crop a window of a mask, resize it, smooth it, cut at one half; in that order.

    ``mask`` is (H, W), zero or nonzero. ``box`` is (left, top, right, bottom) in its pixels,
    fractions allowed, and may stick out: outside the mask nothing is set. Returns (h, w) = ``size``
    bool. ``deviation`` is the Gaussian's standard deviation (rows, columns) in output pixels,
    approximated by three box filters; beyond the edge of the output the edge repeats.
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
    if not (right > left and bottom > top and min(size) > 0):
        raise UserError(f"window {box} to {size[0]}×{size[1]} pixels: empty; right > left needed")
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
