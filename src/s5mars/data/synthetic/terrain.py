"""The ground: soil with small stones, rippled sand, fractured bedrock; where each lies, how high
it stands and how bright it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from s5mars.data.synthetic.camera import Array, Grid, vector
from s5mars.data.synthetic.noise import crack_tile, fractal, pebble_tile, sample

SKY, RIDGE, SOIL, SAND, BEDROCK, ROCK, ROVER, TRACE, HOLE = range(9)
"""Class indices of ``s5mars.classes.S5MARS``."""

_BASE = {  # display RGB; the narrow range of table II
    SOIL: (0.68, 0.53, 0.35),
    SAND: (0.60, 0.485, 0.345),
    BEDROCK: (0.74, 0.635, 0.48),
    ROCK: (0.50, 0.475, 0.42),
}


@dataclass
class Ground:
    """Properties of each grid point; later steps (tracks, holes) change them in place."""

    height: Array  # (K, S) metres
    albedo: Array  # (K, S, 3) display RGB under flat light
    classes: NDArray[np.uint8]  # (K, S) class index
    certainty: Array  # (K, S) in 0..1: 0 at the edge of two materials


@dataclass(frozen=True)
class Geology:
    """Composition of a scene. Amounts are thresholds: 0 covers half of the ground."""

    sand: float
    bedrock: float
    ripple_length: float  # metres from crest to crest
    ripple_turn: float  # radians; 0 has the crests across the view
    slab: float  # metres, width of a bedrock slab
    burial: float  # -1 bare .. 1 nearly buried bedrock
    stones: float  # 0..1 how stony the soil is
    colours: dict[int, tuple[float, float, float]]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Geology:
        """Draw a composition; sand and soil sometimes have nearly the same colour."""
        similarity = rng.uniform(0, 1)
        # Mars varies from pale to dark and from tan to rust, hardly ever to another hue.
        rust = np.array([0.5, 0.0, -0.6])
        tint = rng.normal(0, 0.05, (4, 1)) + rng.normal(0, 0.035, (4, 1)) * rust
        colours = {
            kind: tuple(float(c) for c in np.add(base, tint[i]))
            for i, (kind, base) in enumerate(_BASE.items())
        }
        soil, sand = np.array(colours[SOIL]), np.array(colours[SAND])
        colours[SAND] = tuple(float(c) for c in sand + (soil - sand) * similarity)
        return cls(
            sand=rng.normal(-0.65, 0.95),
            bedrock=rng.normal(0.4, 1.0),
            ripple_length=float(np.exp(rng.uniform(np.log(0.22), np.log(1.1)))),
            ripple_turn=rng.normal(0, 0.5),
            slab=float(np.exp(rng.uniform(np.log(0.45), np.log(1.5)))),
            burial=rng.uniform(-0.8, 0.2),
            stones=rng.uniform(0.1, 1.0),
            colours=colours,  # type: ignore[arg-type]
        )


def lay_ground(rng: np.random.Generator, grid: Grid, geology: Geology, *, scale: float) -> Ground:
    """Relief, albedo and class of the natural ground.

    ``scale`` is the size of the features of the place (1 for a view over several metres, less
    for a close look).
    """
    shape = grid.shape
    sandy = fractal(rng, grid, longest=16 * scale, shortest=0.3 * scale, roughness=0.55)
    rocky = fractal(rng, grid, longest=20 * scale, shortest=0.3 * scale, roughness=0.55)
    hills = fractal(rng, grid, longest=70, shortest=4, roughness=0.5)
    fine = fractal(rng, grid, longest=0.6 * scale, shortest=0.012 * scale, roughness=0.55)
    tone = fractal(rng, grid, longest=3 * scale, shortest=0.02 * scale, roughness=0.75)

    sandy += np.float32(geology.sand * 1.3)
    rocky += np.float32(geology.bedrock * 1.3)
    # Sand lies on top of everything, bedrock shows where no sand is, soil is the rest.
    edge = np.float32(0.22)
    sand = _smooth(sandy / edge)
    bedrock = _smooth(rocky / edge) * (1 - sand)
    soil = 1 - sand - bedrock

    far = np.clip((grid.z[:, :1] - 4) / 60, 0, 1)
    height = hills * 1.6 * far * far**0.5
    height += (0.06 * scale * grid.resolves(4 * scale)) * (sand - 0.3 * soil)
    colour = np.zeros((*shape, 3), np.float32)

    relief, bright = _soil(rng, grid, geology, fine, tone, scale)
    height += soil * relief
    colour += (soil * bright)[..., None] * vector(geology.colours[SOIL])

    relief, bright = _sand(rng, grid, geology, fine, tone, scale)
    height += sand**1.5 * relief
    colour += (sand * bright)[..., None] * vector(geology.colours[SAND])

    relief, bright, covered = _bedrock(rng, grid, geology, fine, tone, scale)
    height += bedrock * relief
    mixed = vector(geology.colours[BEDROCK]) * (1 - covered[..., None])
    mixed += vector(geology.colours[SOIL]) * covered[..., None]
    colour += (bedrock * bright)[..., None] * mixed

    shares = np.stack([soil, sand, bedrock])
    classes = (shares.argmax(0) + SOIL).astype(np.uint8)
    # The shares sum to 1, so the second largest is what the largest and the smallest leave.
    certainty = 2 * shares.max(0) + shares.min(0) - 1
    # Bedrock under a wide area of soil is invisible.
    hidden = ndimage.uniform_filter(covered, max(3, grid.camera.size // 14))
    rock = classes == BEDROCK
    classes[rock & (hidden > 0.8)] = SOIL
    certainty = np.where(rock, certainty * np.clip(np.abs(hidden - 0.8) * 6, 0, 1), certainty)
    return Ground(height.astype(np.float32), colour, classes, certainty)


def _soil(
    rng: np.random.Generator, grid: Grid, geology: Geology, fine: Array, tone: Array, scale: float
) -> tuple[Array, Array]:
    height = 0.0075 * scale * fine
    bright = 1 + 0.055 * tone
    for width, weight in ((2.6 * scale, 1.0), (0.9 * scale, 0.6)):
        show = grid.resolves(width / 24) * np.float32(weight)
        rows = int(np.count_nonzero(show))
        stones = _lay(rng, pebble_tile(), grid, rows, width)
        # Stones gather in patches: where the tone is high there are more.
        some = np.clip(tone[:rows] * 0.8 + np.float32(2.4 * geology.stones - 0.9), 0, 1)
        dome = stones[..., 0] * show[:rows] * some
        height[:rows] += dome * np.float32(0.030 * width)
        cover = np.clip(stones[..., 0] * 6, 0, 1) * show[:rows] * some
        bright[:rows] += cover * (0.10 * stones[..., 1] - 0.10)
    return height, bright


def _sand(
    rng: np.random.Generator, grid: Grid, geology: Geology, fine: Array, tone: Array, scale: float
) -> tuple[Array, Array]:
    """Ripples with sharp crests, a gentle stoss side and a steep lee side."""
    length = np.float32(geology.ripple_length * scale)
    turn = geology.ripple_turn
    bend = fractal(rng, grid, longest=9 * float(length), shortest=1.2 * float(length))
    swell = fractal(rng, grid, longest=14 * float(length), shortest=4 * float(length))
    phase = (grid.x * np.float32(np.sin(turn)) + grid.z * np.float32(np.cos(turn))) / length
    phase += 0.42 * bend
    phase += 0.10 * np.sin(2 * np.pi * phase)
    crest = 1 - np.abs(np.sin(np.float32(np.pi) * phase))
    show = grid.resolves(float(length) * 0.6) * np.clip(0.75 + 0.45 * swell, 0.12, 1.3)
    height = (0.155 * length) * crest * show + 0.0025 * scale * fine
    bright = 1 + 0.03 * tone + 0.10 * (crest - 0.36) * show
    return height, bright


def _bedrock(
    rng: np.random.Generator, grid: Grid, geology: Geology, fine: Array, tone: Array, scale: float
) -> tuple[Array, Array, Array]:
    """Tilted slabs parted by cracks, each slab cracked again; soil in the low places."""
    width = geology.slab * scale
    bend = fractal(rng, grid, longest=1.2 * width, shortest=0.04 * width, roughness=0.5)
    drift = fractal(rng, grid, longest=6 * width, shortest=0.7 * width, roughness=0.6)
    height = np.zeros(grid.shape, np.float32)
    bright = 1 + 0.06 * tone
    crack = np.zeros(grid.shape, np.float32)
    stretch = rng.uniform(1.2, 2.2)
    for part, weight in ((1.0, 1.0), (0.36, 0.42)):
        cell = width * part
        show = grid.resolves(cell * 0.5)
        rows = int(np.count_nonzero(show))
        slab = _lay(
            rng, crack_tile(), grid, rows, 16 * cell, stretch=stretch, bend=0.085 * bend[:rows]
        )
        gap = np.exp(-((slab[..., 0] / 0.05) ** 2)) * show[:rows]
        crack[:rows] = np.maximum(crack[:rows], gap * np.float32(weight))
        height[:rows] += (weight * slab[..., 1] * show[:rows] - 1.1 * weight * gap) * np.float32(
            0.085 * width
        )
        bright[:rows] += np.float32(0.09 * weight) * slab[..., 2] * show[:rows]
    low = np.float32(geology.burial) - height / np.float32(0.055 * width) + 0.5 * drift
    covered = _smooth(low / 0.3 - 0.6)
    fill = np.float32(-0.03 * width) * covered
    height = height * (1 - 0.92 * covered) + fill + np.float32(0.006 * scale) * fine
    bright -= 0.34 * crack * (1 - 0.9 * covered)
    bright *= 1 - 0.08 * covered
    return height, bright, covered


def _lay(
    rng: np.random.Generator,
    tile: Array,
    grid: Grid,
    rows: int,
    width: float,
    *,
    stretch: float = 1.0,
    bend: Array | float = 0.0,
) -> Array:
    """A tile of ``width`` metres on the nearest ``rows`` of the ground, turned at random."""
    turn, *shift = rng.uniform(size=3)
    turn = np.pi * (turn - 0.5) * (0.5 if stretch > 1 else 2)
    scale = tile.shape[0] / width
    x, z = grid.x[:rows], grid.z[:rows]
    cos, sin = np.cos(turn), np.sin(turn)
    along = (x * np.float32(cos) + z * np.float32(sin)) * np.float32(scale / stretch)
    across = (z * np.float32(cos) - x * np.float32(sin)) * np.float32(scale)
    offset = bend * np.float32(tile.shape[0] / 16)
    return sample(
        tile,
        along + offset + np.float32(shift[0] * tile.shape[0]),
        across - offset + np.float32(shift[1] * tile.shape[0]),
    )


def _smooth(value: Array) -> Array:
    """-1..1 → 0..1 with flat ends."""
    part = np.clip(value * 0.5 + 0.5, 0, 1)
    eased: Array = part * part * (3 - 2 * part)
    return eased
