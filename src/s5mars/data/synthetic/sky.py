"""The background: the dusty sky and ridges in the haze."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from s5mars.data.synthetic.camera import Array, Camera, vector
from s5mars.data.synthetic.noise import Wave, profile
from s5mars.data.synthetic.terrain import RIDGE, SKY


def paint_sky(
    rng: np.random.Generator, camera: Camera, haze: tuple[float, float, float]
) -> tuple[Array, NDArray[np.uint8]]:
    """Sky everywhere: image (S, S, 3) and class map; it takes the colour of the haze below."""
    size = camera.size
    row = (np.arange(size, dtype=np.float32) + 0.5) / size
    up = np.clip(camera.horizon - row, 0, 1)[:, None]
    across = np.linspace(-1, 1, size, dtype=np.float32)[None, :]
    glow = 1 + 0.07 * np.exp(-((across - rng.uniform(-1.5, 1.5)) ** 2)) - 0.10 * up
    top = vector(haze) * vector((0.93, 0.91, 0.88 + rng.uniform(0, 0.1)))
    share = np.clip(up * 2.2, 0, 1)[..., None]
    image = (vector(haze) * (1 - share) + top * share) * glow[..., None]
    return image, np.full((size, size), SKY, np.uint8)


def paint_ridges(
    rng: np.random.Generator,
    camera: Camera,
    image: Array,
    classes: NDArray[np.uint8],
    *,
    haze: tuple[float, float, float],
    dust: float,
    colour: tuple[float, float, float],
    side: float,
) -> None:
    """Paint one to three ridges, the farthest first and most in the haze.

    ``dust`` in 0..1 is how much haze lies on the nearest one; ``side`` in -1..1 is the side that
    the light comes from.
    """
    size = camera.size
    count = int(rng.integers(1, 4))
    tallest = rng.uniform(0.12, 0.34)
    x, y = np.meshgrid(
        (np.arange(size, dtype=np.float32) + 0.5) / size,
        (np.arange(size, dtype=np.float32) + 0.5) / size,
    )
    for number in range(count):
        near = (number + 1) / count
        height = tallest * (1.15 - 0.75 * near) if count > 1 else tallest * 0.8
        line = profile(rng, size, roughness=rng.uniform(0.35, 0.5))
        slope = rng.normal(0, 0.5) * np.linspace(-1, 1, size, dtype=np.float32)
        skyline = camera.horizon - height * np.clip(0.55 + 0.3 * (line + slope), 0.05, 1.2)
        below = y - skyline[None, :]
        # Gullies run down the slope; benches run along it, as in layered hills.
        waves = [Wave.draw(rng) for _ in range(5)]
        bend = 0.025 * waves[0].at(x, y, 0.35)
        gullies = waves[1].at(x + bend, y * 0.6, 0.16)
        gullies += 0.7 * waves[2].at(x + bend, y * 0.6, 0.07)
        gullies += 0.4 * waves[3].at(x + bend, y * 0.6, 0.03)
        benches = waves[4].at(x * 0.1, below + 0.4 * bend, 0.03)
        lit = np.gradient(gullies, axis=1) * size * 0.014 * side
        bright = 0.90 + 0.05 * np.clip(lit, -1.5, 1.5) + 0.03 * benches + 0.05 * gullies
        veil = dust + (1 - dust) * 0.55 * (1 - near)
        depth = veil + 0.5 * (1 - veil) * np.clip(below / max(height, 1e-3), 0, 1)
        tone = vector(colour) * vector((0.80, 0.82, 0.88)) * bright[..., None]
        painted = tone * (1 - depth[..., None]) + vector(haze) * depth[..., None]
        cover = np.clip(below * size + 0.5, 0, 1)
        image += (painted - image) * cover[..., None]
        classes[cover > 0.5] = RIDGE
