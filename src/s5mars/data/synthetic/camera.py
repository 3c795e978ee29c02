"""A pinhole camera over a ground with relief: the ground point of each pixel.

Axes: x to the right, y up, z away from the camera, in metres; the camera stands at
(0, height, 0) and looks along z. Looking down is a shift of the horizon (a shift lens), so that
every row of the image sees one distance of flat ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
"""float32 in images and on the ground; intermediate results may have other types."""

FARTHEST = 500.0
"""Largest distance of the ground in metres; beyond it are only ridges and sky."""


def vector(values: Sequence[float]) -> NDArray[np.float32]:
    """A colour or a direction as float32, so that it does not turn an image into float64."""
    return np.asarray(values, np.float32)


@dataclass(frozen=True)
class Camera:
    """Position and orientation of the camera."""

    size: int  # pixels a side
    focal: float  # in image widths
    height: float  # metres above the ground
    horizon: float  # row of the horizon, in image heights; below 0 it is out of sight

    @property
    def focal_pixels(self) -> float:
        """Focal length in pixels."""
        return self.focal * self.size

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Column and row in pixels of a point in metres."""
        scale = self.focal_pixels / z
        return self.size / 2 + x * scale, self.horizon * self.size + (self.height - y) * scale

    def depth(self, row: float, *, height: float = 0.0) -> float:
        """Distance in metres at which a plane at ``height`` is seen in ``row`` (image heights)."""
        return self.focal * (self.height - height) / max(row - self.horizon, 1e-3)

    def grid(self) -> Grid:
        """The ground points, near to far, that flat ground would show one pixel row each."""
        nearest = (1 - self.horizon) * self.size * 1.3
        farthest = max(self.focal_pixels * self.height / FARTHEST, -self.horizon * self.size * 0.8)
        below = np.linspace(nearest, farthest, int(1.15 * (nearest - farthest)), dtype=np.float32)
        z = np.float32(self.focal_pixels * self.height) / below
        column = np.arange(self.size, dtype=np.float32) + 0.5 - self.size / 2
        x = column[None, :] * (z / np.float32(self.focal_pixels))[:, None]
        return Grid(self, x, np.repeat(z[:, None], self.size, 1))


@dataclass(frozen=True)
class Grid:
    """Ground points, (K, S) in metres; a row has one distance, the first row is the nearest."""

    camera: Camera
    x: Array
    z: Array

    @property
    def shape(self) -> tuple[int, int]:
        """(K, S)."""
        return self.x.shape[0], self.x.shape[1]

    @cached_property
    def across(self) -> Array:
        """Width of a pixel on the ground, (K, 1) metres."""
        return self.z[:, :1] / np.float32(self.camera.focal_pixels)

    @cached_property
    def along(self) -> Array:
        """Length of a pixel on the ground, (K, 1) metres."""
        return self.across * self.z[:, :1] / np.float32(self.camera.height)

    @property
    def nearest_pixel(self) -> float:
        """Width in metres of a pixel of the nearest row."""
        return float(self.across[0, 0])

    def resolves(self, wavelength: float) -> Array:
        """Contrast of a wave of this length at the size of a pixel, (K, 1) in 0..1; 0 far away."""
        pixel = np.maximum(self.across, 0.4 * self.along)
        shown: Array = np.clip(np.float32(wavelength) / (2 * pixel) - 1, 0, 1)
        return shown

    def slopes(self, height: Array) -> tuple[Array, Array]:
        """Derivatives of a height (K, S) along x and z."""
        along_x = np.empty_like(height)
        along_x[:, 1:-1] = height[:, 2:] - height[:, :-2]
        along_x[:, 0], along_x[:, -1] = along_x[:, 1], along_x[:, -2]
        along_x /= 2 * self.across
        along_z = np.empty_like(height)
        along_z[1:-1] = (height[2:] - height[:-2]) / (self.z[2:, :1] - self.z[:-2, :1])
        along_z[0], along_z[-1] = along_z[1], along_z[-2]
        return along_x, along_z

    def visible(self, height: Array) -> Visible:
        """The visible grid point of each pixel; hills hide the ground behind them."""
        camera, size = self.camera, self.camera.size
        row = camera.horizon * size + camera.focal_pixels * (camera.height - height) / self.z
        skyline = np.minimum.accumulate(row, 0)
        wanted = -(np.arange(size) + 0.5)
        behind = np.empty((size, size), np.int32)
        climbing = np.ascontiguousarray(-skyline.T)
        for column in range(size):
            behind[:, column] = np.searchsorted(climbing[column], wanted)
        ground = behind < self.shape[0]
        upper = np.clip(behind, 1, self.shape[0] - 1)
        columns = np.arange(size)[None, :]
        flat_upper = upper * size + columns
        y0, y1 = skyline.ravel()[flat_upper - size], skyline.ravel()[flat_upper]
        share = np.clip((y0 + wanted[:, None].astype(np.float32)) / np.maximum(y0 - y1, 1e-6), 0, 1)
        return Visible(ground, flat_upper, share.astype(np.float32), size)


@dataclass(frozen=True)
class Visible:
    """Reads values of the grid for every pixel of the image."""

    ground: NDArray[np.bool_]  # (S, S), False where no ground is seen
    index: NDArray[np.int32]
    share: Array
    size: int

    def read(self, values: Array) -> Array:
        """(K, S) or (K, S, C) on the grid → (S, S) or (S, S, C) in the image."""
        flat = values.reshape(values.shape[0] * values.shape[1], -1)
        near = flat.take(self.index - self.size, 0)
        near += (flat.take(self.index, 0) - near) * self.share[..., None]
        return near if values.ndim == 3 else near[..., 0]
