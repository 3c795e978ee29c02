"""Textures of all materials: periodic tiles, sampled at any point of the ground.

The tiles are the same for all scenes (so they are computed once); a scene differs by how it
turns, shifts and scales them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from s5mars.data.synthetic.camera import Array, Grid
from s5mars.randomness import generator

_TILE = 256
_WAVES = 16  # wavelengths across a wave tile
_CELLS = 16  # slabs across a crack tile
_STRIDE = 4  # long waves are computed on every fourth grid point only


@lru_cache(maxsize=4)
def wave_tile(variant: int) -> Array:
    """Periodic band-limited Gaussian noise, (256, 256), mean 0, deviation 1, wavelength 16."""
    white = generator(variant, "synthetic wave tile").standard_normal((_TILE, _TILE))
    frequency = np.fft.fftfreq(_TILE, 1 / _TILE)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    band = np.exp(-(np.log2(np.maximum(radius, 0.1) / _WAVES) ** 2) / 0.25)
    tile = np.real(np.fft.ifft2(np.fft.fft2(white) * band))
    even: Array = ((tile - tile.mean()) / tile.std()).astype(np.float32)
    return even


@lru_cache(maxsize=1)
def crack_tile() -> Array:
    """Periodic Voronoi slabs, (512, 512, 3); one slab is about 32 texels wide.

    The channels: distance to the nearest crack in slab widths; height of the tilted slab in
    -1..1; brightness of the slab in -1..1.
    """
    size, cells = 512, _CELLS
    rng = generator(0, "synthetic crack tile")
    jitter = rng.uniform(-0.42, 0.42, (2, cells, cells))
    level, tone, tilt_y, tilt_x = rng.uniform(-1, 1, (4, cells, cells))
    at = (np.arange(size) + 0.5) * cells / size
    y, x = np.meshgrid(at, at, indexing="ij")
    row, column = y.astype(int), x.astype(int)
    offsets, places = [], []
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            r, c = (row + dy) % cells, (column + dx) % cells
            offsets.append(
                np.stack([y - (row + dy + 0.5 + jitter[0, r, c]),
                          x - (column + dx + 0.5 + jitter[1, r, c])])
            )  # fmt: skip
            places.append(r * cells + c)
    offset, place = np.stack(offsets), np.stack(places)  # (9, 2, S, S), (9, S, S)
    squared = (offset**2).sum(1)
    nearest = squared.argmin(0)[None]
    own = np.take_along_axis(offset, nearest[:, None], 0)[0]
    cell = np.take_along_axis(place, nearest, 0)[0]
    between = np.sqrt(((offset - own) ** 2).sum(1))
    gap = (squared - squared.min(0)) / (2 * np.maximum(between, 1e-6))
    np.put_along_axis(gap, nearest, np.inf, 0)
    top = 0.6 * level.flat[cell] + 0.45 * (tilt_y.flat[cell] * own[0] + tilt_x.flat[cell] * own[1])
    return np.stack([gap.min(0), top, tone.flat[cell]], -1).astype(np.float32)


@lru_cache(maxsize=1)
def pebble_tile() -> Array:
    """Periodic scatter of small stones, (512, 512, 2): dome height 0..1, brightness -1..1."""
    size = 512
    rng = generator(0, "synthetic pebble tile")
    tile = np.zeros((size, size, 2), np.float32)
    for _ in range(420):
        radius = min(3.0 / rng.uniform(0.05, 1) ** 0.55, 15.0)
        centre_y, centre_x = rng.integers(0, size, 2)
        squash, turn, tone = rng.uniform(0.55, 1), rng.uniform(0, np.pi), rng.uniform(-1, 1)
        span = np.arange(-16, 17)
        dy, dx = np.meshgrid(span, span, indexing="ij")
        along = dx * np.cos(turn) + dy * np.sin(turn)
        across = (dy * np.cos(turn) - dx * np.sin(turn)) / squash
        dome = np.sqrt(np.clip(1 - (along**2 + across**2) / radius**2, 0, 1)) * radius / 15
        rows, columns = (centre_y + span) % size, (centre_x + span) % size
        block = tile[np.ix_(rows, columns)]
        higher = dome > block[..., 0]
        block[higher, 0] = dome[higher]
        block[higher, 1] = tone
        tile[np.ix_(rows, columns)] = block
    return tile


def sample(tile: Array, u: Array, v: Array) -> Array:
    """Read a periodic tile of 2^n texels a side at (u, v) texels, bilinear; shape of u (+ C)."""
    size = tile.shape[0]
    flat = tile.reshape(size * size, -1)
    left, top = np.floor(u), np.floor(v)
    fu, fv = (u - left)[..., None], (v - top)[..., None]
    x0 = left.astype(np.int32) & (size - 1)
    y0 = (top.astype(np.int32) & (size - 1)) * size
    x1 = (x0 + 1) & (size - 1)
    y1 = (y0 + size) & (size * size - 1)
    upper = flat.take(y0 + x0, 0)
    upper += (flat.take(y0 + x1, 0) - upper) * fu
    lower = flat.take(y1 + x0, 0)
    lower += (flat.take(y1 + x1, 0) - lower) * fu
    upper += (lower - upper) * fv
    values: Array = upper if tile.ndim == 3 else upper[..., 0]
    return values


@dataclass(frozen=True)
class Wave:
    """One octave of noise: which tile, and how it lies on the ground."""

    tile: int
    turn: float
    shift: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Wave:
        """Always four draws, so that the scene does not depend on the size of the image."""
        tile, turn, *shift = rng.uniform(size=4)
        return cls(int(tile * 2), 2 * np.pi * turn, (shift[0] * _TILE, shift[1] * _TILE))

    def at(self, x: Array, z: Array, wavelength: float) -> Array:
        """Values at (x, z) metres; mean 0, deviation 1."""
        scale = _WAVES / wavelength
        cos, sin = np.float32(np.cos(self.turn) * scale), np.float32(np.sin(self.turn) * scale)
        u = x * cos + z * sin + np.float32(self.shift[0])
        v = z * cos - x * sin + np.float32(self.shift[1])
        return sample(wave_tile(self.tile), u, v)


def fractal(
    rng: np.random.Generator,
    grid: Grid,
    *,
    longest: float,
    shortest: float,
    roughness: float = 0.6,
) -> Array:
    """Octaves of noise from ``longest`` to ``shortest`` metres on the ground, (K, S).

    An octave has ``roughness`` times the amplitude of the one before it (the first has 1), and
    fades out at the distance where a pixel no longer resolves it.
    """
    total = np.zeros(grid.shape, np.float32)
    coarse_x, coarse_z = grid.x[::_STRIDE, ::_STRIDE], grid.z[::_STRIDE, ::_STRIDE]
    coarse = np.zeros(coarse_x.shape, np.float32)
    amplitude, wavelength = 1.0, longest
    while wavelength >= shortest:
        fade = grid.resolves(wavelength) * np.float32(amplitude)
        rows = int(np.count_nonzero(fade))  # the near rows come first
        wave = Wave.draw(rng)
        # Far rows would want the full grid, but there an octave this long is faded anyway.
        if wavelength > 24 * grid.nearest_pixel:
            count = -(-rows // _STRIDE)
            values = wave.at(coarse_x[:count], coarse_z[:count], wavelength)
            coarse[:count] += values * fade[::_STRIDE][:count]
        elif rows:
            total[:rows] += wave.at(grid.x[:rows], grid.z[:rows], wavelength) * fade[:rows]
        amplitude *= roughness
        wavelength /= 2
    return total + upsample(coarse, grid.shape)


def upsample(coarse: Array, shape: tuple[int, int]) -> Array:
    """Linear interpolation of values that were computed on every fourth row and column."""
    for axis in (0, 1):
        position = np.arange(shape[axis], dtype=np.float32) / _STRIDE
        low = np.minimum(position.astype(int), coarse.shape[axis] - 1)
        high = np.minimum(low + 1, coarse.shape[axis] - 1)
        share = (position - low).reshape((-1, 1) if axis == 0 else (1, -1))
        first = coarse.take(low, axis)
        coarse = first + (coarse.take(high, axis) - first) * share
    return coarse


def profile(rng: np.random.Generator, size: int, *, roughness: float = 0.5) -> Array:
    """A fractal line of ``size`` points, mean 0, deviation about 1: the shape of a skyline."""
    at = np.linspace(0, 1, size)
    line = np.zeros(size)
    for octave in range(7):
        knots = rng.standard_normal(2 ** (octave + 1) + 3)
        place = at * (len(knots) - 3) + 1 + rng.uniform(-0.5, 0.5)
        low = place.astype(int)
        share = place - low
        share = share * share * (3 - 2 * share)
        line += roughness**octave * (knots[low] * (1 - share) + knots[low + 1] * share)
    return line.astype(np.float32)
