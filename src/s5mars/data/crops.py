"""Weak augmentation: random scale, crop and flip.

These are the weak views of the paper (section V-B) with the ranges of the released code: a factor
of 0.5–2.0 on the image size, a random crop, a horizontal flip with probability 0.5. The crop is
drawn first, and only its window is resampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s5mars.data.resolution import FULL, Resolution

Box = tuple[float, float, float, float]
Pixel = tuple[int, int]
"""(column, row)."""


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """How a training crop is drawn."""

    size: int = 512
    scale: tuple[float, float] = (0.5, 2.0)  # factor on the image at its resolution
    resolution: Resolution = FULL
    flip: float = 0.5
    fixed: bool = False  # draw one of ``fixed_windows`` instead, of the shorter side
    tiles: bool = False  # draw one of ``fixed_windows`` at the resolution instead


@dataclass(frozen=True)
class Crop:
    """One crop: the side of the square output and the window of the source image."""

    size: int  # output side in pixels
    window: Box  # left, top, right, bottom in source pixels; may reach beyond the image
    flip: bool

    def image(self, source: Image.Image) -> NDArray[np.uint8]:
        """Crop an image bilinearly to (S, S, 3) uint8; 0 outside the source."""
        return self._resample(source, Image.Resampling.BILINEAR, fill=0)

    def mask(self, source: Image.Image, *, outside: int) -> NDArray[np.uint8]:
        """Crop a mask by nearest neighbour to (S, S) uint8; ``outside`` outside the source."""
        return self._resample(source, Image.Resampling.NEAREST, fill=outside)

    def inside(self, width: int, height: int) -> NDArray[np.bool_]:
        """(S, S) bool, True where the output shows the source."""
        left, top, right, bottom = self._target(width, height)
        out = np.zeros((self.size, self.size), bool)
        out[top:bottom, left:right] = True
        return out[:, ::-1] if self.flip else out

    def _target(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The part of the output that the source covers, in output pixels."""
        left, top, right, _bottom = self.window
        factor = self.size / (right - left)
        x = min(self.size - 1, max(0, round(-left * factor)))
        y = min(self.size - 1, max(0, round(-top * factor)))
        # A very narrow image keeps one pixel.
        return (
            x,
            y,
            max(x + 1, min(self.size, round((width - left) * factor))),
            max(y + 1, min(self.size, round((height - top) * factor))),
        )

    def _resample(
        self, source: Image.Image, method: Image.Resampling, *, fill: int
    ) -> NDArray[np.uint8]:
        width, height = source.size
        left, top, right, bottom = self._target(width, height)
        box = (
            max(0.0, self.window[0]),
            max(0.0, self.window[1]),
            min(float(width), self.window[2]),
            min(float(height), self.window[3]),
        )
        part = np.asarray(source.resize((right - left, bottom - top), method, box=box))
        if part.shape[:2] == (self.size, self.size):
            out = part
        else:
            out = np.full((self.size, self.size, *part.shape[2:]), fill, np.uint8)
            out[top:bottom, left:right] = part
        return out[:, ::-1] if self.flip else out


def draw_crop(
    width: int,
    height: int,
    *,
    settings: CropSettings,
    rng: np.random.Generator,
    around: Pixel | None = None,
) -> Crop:
    """Draw the scale, the position and the flip of one crop.

    With ``settings.fixed`` or ``tiles`` the window is one of ``fixed_windows``. Otherwise, an image
    that is smaller than the crop after scaling lies completely inside it, at a random place.

    ``around`` is a pixel of the source that the crop must contain, at a random place.
    """
    if settings.fixed or settings.tiles:
        windows = fixed_windows(width, height, side=_side(width, height, settings))
        if around is not None:
            windows = [window for window in windows if _holds(window, around)]
        window = windows[rng.integers(len(windows))]
        return Crop(settings.size, window, bool(rng.random() < settings.flip))
    factor = rng.uniform(*settings.scale) * settings.resolution.factor(width, height)
    side = settings.size / factor
    x, y = around or (None, None)
    left = rng.uniform(*_starts(width, side, x))
    top = rng.uniform(*_starts(height, side, y))
    flip = bool(rng.random() < settings.flip)
    return Crop(settings.size, (left, top, left + side, top + side), flip)


@lru_cache(maxsize=16)
def coverage(
    width: int, height: int, settings: CropSettings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Expected number of crop pixels that show each pixel of an image, over ``draw_crop``.

    Crops undersample the borders of an image, and enlarged crops show a pixel several times. The
    sum over the pixels of a class is the area of the class in an average crop.

    Returns:
        (H, K) and (K, W) float64, whose matrix product is the number, above 0. The product itself
        would take a gigabyte for some panoramas.
    """
    if settings.fixed or settings.tiles:
        windows = fixed_windows(width, height, side=_side(width, height, settings))
        factors = np.array([settings.size / (right - left) for left, _, right, _ in windows])
        columns, rows = (
            np.array([(first <= at) & (at < last) for first, last in edges], float)
            for at, edges in (
                (np.arange(width) + 0.5, [(w[0], w[2]) for w in windows]),
                (np.arange(height) + 0.5, [(w[1], w[3]) for w in windows]),
            )
        )
    else:
        smallest, largest = settings.scale
        steps = (np.arange(_FACTORS) + 0.5) / _FACTORS
        factors = smallest + steps * (largest - smallest)
        factors *= settings.resolution.factor(width, height)
        columns, rows = (
            np.array([_chances(length, settings.size / factor) for factor in factors])
            for length in (width, height)
        )
    return (rows * factors[:, None] ** 2 / len(factors)).T, columns


_FACTORS = 64
"""Number of evenly spaced scale factors that ``coverage`` averages over."""


def _chances(length: int, side: float) -> NDArray[np.float64]:
    """(length,) probability that a crop of this side contains each pixel, along one axis."""
    free = length - side
    if free <= 0:
        return np.ones(length)
    at = np.arange(length) + 0.5
    return np.asarray((np.minimum(free, at) - np.maximum(0, at - side)) / free)


def _starts(length: int, side: float, pixel: int | None) -> tuple[float, float]:
    """First and last start of a crop of this side, along one axis."""
    first, last = min(0.0, length - side), max(0.0, length - side)
    if pixel is None:
        return first, last
    # A crop smaller than a pixel lies inside it.
    return max(first, min(pixel, pixel + 1 - side)), min(last, max(pixel, pixel + 1 - side))


def _holds(window: Box, pixel: Pixel) -> bool:
    left, top, right, bottom = window
    x, y = pixel
    return left <= x + 0.5 <= right and top <= y + 0.5 <= bottom


def fixed_windows(width: int, height: int, *, side: float | None = None) -> list[Box]:
    """The fewest evenly spaced squares that cover an image.

    With them a frozen network sees few different crops, so that its features can be cached. A
    square that is larger than the image begins at its edge. ``side`` is in pixels of the image, by
    default the shorter side.
    """
    side = float(min(width, height)) if side is None else side
    across, down = (
        [k * (length - side) / max(count - 1, 1) for k in range(count)]
        for length, count in ((n, max(1, math.ceil(n / side - 1e-9))) for n in (width, height))
    )
    return [
        (max(0.0, left), max(0.0, top), max(0.0, left) + side, max(0.0, top) + side)
        for top in down
        for left in across
    ]


def _side(width: int, height: int, settings: CropSettings) -> float | None:
    if settings.fixed:
        return None
    return settings.size / settings.resolution.factor(width, height)
