"""Traces of the rover in the ground: wheel tracks and drill holes with their tailings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s5mars.data.synthetic.camera import Grid, vector
from s5mars.data.synthetic.noise import Wave, fractal
from s5mars.data.synthetic.terrain import HOLE, TRACE, Ground

_TAILINGS = (0.60, 0.575, 0.525)


@dataclass(frozen=True)
class Track:
    """Two parallel ruts with cleat marks along a bent line."""

    x: float  # metres, where the middle line passes the distance `z`
    z: float
    turn: float  # radians from straight ahead
    bend: float  # 1/metres
    gauge: float  # metres between the middles of the ruts
    wheel: float  # metres, width of a rut
    cleat: float  # metres from mark to mark
    depth: float  # metres


@dataclass(frozen=True)
class Hole:
    """A drill hole and the heap of rock powder around it."""

    x: float
    z: float
    radius: float  # metres
    heap: float  # radius of the tailings in radii of the hole


def drive(rng: np.random.Generator, grid: Grid, ground: Ground, track: Track) -> None:
    """Press a track into the ground."""
    wobble = fractal(rng, grid, longest=2.0, shortest=0.05, roughness=0.6)
    dx, dz = grid.x - np.float32(track.x), grid.z - np.float32(track.z)
    cos, sin = np.float32(np.cos(track.turn)), np.float32(np.sin(track.turn))
    along = dz * cos + dx * sin
    side = dx * cos - dz * sin - np.float32(track.bend) * along * along
    # Distance is measured at right angles to the bent line.
    slant = 1 / np.sqrt(1 + (2 * np.float32(track.bend) * along) ** 2)
    half = np.float32(track.wheel / 2)
    for number, centre in enumerate((-track.gauge / 2, track.gauge / 2)):
        offset = (side - np.float32(centre)) * slant
        distance = np.abs(offset) + 0.012 * wobble * (half / 0.2)
        inside = np.clip((half - distance) / (0.10 * half) + 0.5, 0, 1)
        phase = along / np.float32(track.cleat) + 0.35 * np.abs(offset) / half + 0.37 * number
        mark = np.clip(np.cos(2 * np.pi * phase) * 2.2 - 0.6, -1, 1)
        show = grid.resolves(track.cleat * 1.2)
        depth = np.float32(track.depth)
        berm = np.exp(-(((distance - 1.12 * half) / (0.20 * half)) ** 2))
        rut = -depth * (1 + 0.55 * mark * show)
        ground.height += (rut - ground.height * 0.6) * inside * (distance < 2 * half)
        ground.height += berm * depth * (0.7 + 0.2 * wobble) * grid.resolves(track.wheel * 0.5)
        shade = 1 - inside * (0.17 + 0.07 * mark * show) + 0.04 * berm
        ground.albedo *= shade[..., None]
        outline = distance < 1.25 * half
        ground.certainty[outline] = np.abs(distance - 1.1 * half)[outline] / (0.2 * half)
        ground.classes[distance < 1.1 * half] = TRACE


def drill(rng: np.random.Generator, grid: Grid, ground: Ground, hole: Hole) -> None:
    """Drill a hole: dark inside, a grey, uneven heap of powder around it."""
    reach = hole.radius * (hole.heap + 3)
    rows = np.flatnonzero(np.abs(grid.z[:, 0] - hole.z) < reach)
    waves = [Wave.draw(rng) for _ in range(3)]
    if not rows.size:
        return
    part = slice(int(rows[0]), int(rows[-1]) + 1)
    x, z = grid.x[part] - np.float32(hole.x), grid.z[part] - np.float32(hole.z)
    radius = np.float32(hole.radius)
    distance = np.hypot(x, z) / radius
    uneven = waves[0].at(x, z, hole.radius * 4) * 0.55 + waves[1].at(x, z, hole.radius * 1.5) * 0.25
    grain = waves[2].at(x, z, hole.radius * 0.45)
    edge = np.float32(hole.heap) + uneven * np.float32(0.30 * hole.heap)
    powder = np.clip((edge - distance) / 0.35 + 0.5, 0, 1) * np.clip(0.92 + 0.1 * uneven, 0, 1)
    inside = np.clip((1 - distance) / 0.08 + 0.5, 0, 1)

    height = ground.height[part]
    ring = np.exp(-(((distance - 1.5) / 0.55) ** 2)) * 0.55 + 0.18 * np.clip(edge - distance, 0, 1)
    level = float(np.median(height[distance < hole.heap])) if (distance < hole.heap).any() else 0.0
    height += (np.float32(level) - height) * powder * 0.75
    height += radius * (ring + 0.010 * grain) * powder - radius * 0.5 * inside
    albedo = ground.albedo[part]
    tint = vector(_TAILINGS) * (1 + 0.03 * grain)[..., None]
    albedo += (tint - albedo) * (0.9 * powder)[..., None]
    albedo *= (1 - 0.78 * inside)[..., None]
    # The far wall catches the light: the hole reads as deep, not as a dark disc.
    wall = inside * np.clip(z / radius - 0.35, 0, 1)
    albedo += (0.22 * wall)[..., None] * vector(_TAILINGS)
    touched = distance < edge + 0.3
    ground.classes[part][powder > 0.5] = HOLE
    ground.certainty[part][touched] = np.clip(np.abs(edge - distance)[touched] / 0.6, 0, 1)
