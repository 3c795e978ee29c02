"""Rocks that lie free on the ground: convex lumps with flat faces, and their shadows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s5mars.data.synthetic.camera import Array, Camera, vector
from s5mars.data.synthetic.noise import Wave
from s5mars.randomness import generator

_BURIED = 0.38  # of the height of a rock


@dataclass(frozen=True)
class Rock:
    """One rock; ``radius`` in metres, half of its width."""

    x: float
    y: float  # height of the ground there
    z: float
    radius: float
    squash: float  # height over width
    colour: tuple[float, float, float]
    shape: int  # seeds its faces


def scatter(
    rng: np.random.Generator, camera: Camera, *, count: int, largest: float, stony: float
) -> list[tuple[float, float, float]]:
    """(x, z, radius) of rocks: many small ones, few large ones, gathered in clusters.

    ``largest`` is the radius, in image widths, that the largest may have on the image.
    """
    lowest = max(camera.horizon, -0.05) + 0.035
    found: list[tuple[float, float, float]] = []
    clusters = rng.uniform(0, 1, (4, 2))
    for _ in range(count):
        gathered, place, power = rng.uniform(), rng.uniform(0, 1, 2), rng.pareto(1.35)
        near, jitter = clusters[int(rng.integers(4))], rng.normal(0, 0.10, 2)
        across, down = near + jitter if gathered < stony else place
        row = lowest + (1.05 - lowest) * abs(down) ** 1.3
        z = camera.depth(row)
        radius = 0.055 * (1 + power) * z / camera.focal * (0.14 + 0.10 * row)
        radius = min(radius, largest * z / camera.focal)
        found.append(((across * 1.2 - 0.6) * z / camera.focal, z, radius))
    return sorted(found, key=lambda rock: -rock[1])


def cast_shadow(
    light: Array, rock: Rock, camera: Camera, x: Array, z: Array, sun: tuple[float, float, float]
) -> None:
    """Darken ``light`` (S, S) where the rock keeps the sun off the ground at (x, z) metres."""
    flat = float(np.hypot(sun[0], sun[2]))
    away_x, away_z = -sun[0] / max(flat, 1e-6), -sun[2] / max(flat, 1e-6)
    tall = rock.radius * rock.squash * (2 - 2 * _BURIED)
    length = min(tall * flat / sun[1], 6 * rock.radius) + 0.5 * rock.radius
    corners = [
        camera.project(rock.x + dx, rock.y, max(rock.z + dz, 0.3))
        for dx in _span(away_x * length, rock.radius)
        for dz in _span(away_z * length, rock.radius)
    ]
    rows, columns = _window(corners, light.shape[0])
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return
    dx, dz = x[rows, columns] - np.float32(rock.x), z[rows, columns] - np.float32(rock.z)
    along = (dx * np.float32(away_x) + dz * np.float32(away_z)) / np.float32(length)
    across = (dz * np.float32(away_x) - dx * np.float32(away_z)) / np.float32(rock.radius)
    ragged = 0.12 * Wave(0, 0.0, (rock.shape % 251, 0.0)).at(dx, dz, 0.7 * rock.radius)
    half = 0.95 * np.sqrt(np.clip(1 - np.clip(along, 0, 1) ** 2, 0, 1)) + ragged
    inside = np.clip((half - np.abs(across)) / 0.22, 0, 1) * (along > -0.35 * rock.radius / length)
    light[rows, columns] *= 1 - inside * np.clip((1.05 - along) / 0.2, 0, 1)


def draw_rock(
    image: Array,
    classes: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    depth: Array,
    rock: Rock,
    camera: Camera,
    *,
    sun: tuple[float, float, float],
    ambient: float,
    label: int,
) -> None:
    """Paint the rock into the image (S, S, 3) and the class map where nearer hills let it show."""
    column, row = camera.project(rock.x, rock.y, rock.z)
    pixels = camera.focal_pixels * rock.radius / rock.z
    reach = 1.4 * pixels + 1
    rows, columns = _window(
        [(column - reach, row - 1.6 * reach), (column + reach, row + 0.8 * reach)], image.shape[0]
    )
    if rows.stop <= rows.start or columns.stop <= columns.start or pixels < 0.8:
        return
    u = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5 - column) / pixels
    v = (row - 0.5 - np.arange(rows.start, rows.stop, dtype=np.float32)) / pixels
    u, v = np.broadcast_arrays(u[None, :], v[:, None])
    down = np.arctan2(camera.height - rock.y, rock.z)
    cos, sin = float(np.cos(down)), float(np.sin(down))

    faces, reaches = _faces(rock)
    # In the frame of the view: to the right, up on the image, towards the camera.
    right, up = faces[:, 0], faces[:, 1] * cos + faces[:, 2] * sin
    toward = faces[:, 1] * sin - faces[:, 2] * cos
    front, back = toward > 0.05, toward < -0.05
    shift = rock.squash * (1 - 2 * _BURIED)  # its middle stands above the ground
    v = v - np.float32(shift * cos)
    planes = (reaches[:, None, None] - right[:, None, None] * u - up[:, None, None] * v) / toward[
        :, None, None
    ]
    surface = planes[front].min(0)
    behind = planes[back].max(0)
    side = ~front & ~back
    thick = surface - behind
    if side.any():
        thick = np.minimum(thick, (planes[side] * toward[side][:, None, None]).min(0))
    above = v * cos + surface * sin + shift  # height over the ground, in radii
    cover = np.clip(thick * pixels * 0.35, 0, 1) * np.clip(above * pixels * 0.6 + 0.5, 0, 1)
    cover = cover * (depth[rows, columns] > rock.z - 1.6 * rock.radius)
    if not cover.any():
        return

    weight = np.exp((surface[None] - planes[front]) / 0.05)
    weight /= weight.sum(0)
    normal = np.einsum("fhw,fc->hwc", weight, faces[front])
    rough = Wave(rock.shape % 2, 0.7, (rock.shape % 241, rock.shape % 199))
    if pixels > 4 and min(u.shape) > 1:  # one row at the edge of the image has no slope
        grain = 1.4 * rough.at(u, v + surface * 0.5, 0.8) + 0.6 * rough.at(v, u + surface, 0.27)
        if pixels > 14:
            grain = grain + 0.25 * rough.at(u + surface, v, 0.09)
        slope = np.stack([np.gradient(grain, axis=1), np.gradient(grain, axis=0)], -1) * np.float32(
            0.024 * min(pixels, 40)
        )
        normal[..., :2] -= slope * vector((1, -1))
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    else:
        grain = np.zeros_like(u)
    facing = np.clip(normal @ vector(sun), 0, 1)
    open_sky = 0.5 + 0.5 * normal[..., 1]
    shade = ambient * (0.35 + 0.85 * open_sky) + (1 - ambient) * facing / 0.72
    shade *= np.clip(0.55 + 0.9 * above, 0.55, 1)  # less light near the ground
    dust = np.clip(1.6 * normal[..., 1] - 0.75, 0, 0.7)[..., None]  # gathers on top
    colour = vector(rock.colour) * (1 - dust) + vector((0.66, 0.53, 0.37)) * dust
    painted = colour * (shade * (1 + 0.05 * grain))[..., None]
    patch = image[rows, columns]
    patch += (painted - patch) * cover[..., None]
    classes[rows, columns][cover > 0.5] = label


def _faces(rock: Rock) -> tuple[Array, Array]:
    """Normals (F, 3) and distances (F,) of the faces of a lump of width 2 and height 2·squash."""
    rng = generator(rock.shape, "synthetic rock")
    count = int(rng.integers(8, 15))
    normals = rng.standard_normal((count, 3))
    # Six faces more close the lump from every side.
    normals = np.concatenate([normals, np.eye(3), -np.eye(3)])
    normals += rng.normal(0, 0.33, normals.shape)
    # Most faces lean back: a rock rests on its broad side.
    leans = rng.uniform(size=len(normals)) < 0.8
    normals[leans, 1] = np.abs(normals[leans, 1]) + 0.15
    normals[-2] = (0, -1, 0)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    reaches = rng.uniform(0.72, 1.0, len(normals))
    stretched = normals / np.array([1.0, rock.squash, rng.uniform(0.7, 1.0)])
    length = np.linalg.norm(stretched, axis=1)
    return (stretched / length[:, None]).astype(np.float32), (reaches / length).astype(np.float32)


def _span(shift: float, radius: float) -> tuple[float, float]:
    return min(shift, 0.0) - 1.2 * radius, max(shift, 0.0) + 1.2 * radius


def _window(corners: list[tuple[float, float]], size: int) -> tuple[slice, slice]:
    """Rows and columns of the smallest window with all corners, cut at the image."""
    across, down = zip(*corners, strict=True)
    left, right = (int(np.clip(v, 0, size)) for v in (min(across), max(across) + 1))
    top, bottom = (int(np.clip(v, 0, size)) for v in (min(down), max(down) + 1))
    return slice(top, bottom), slice(left, right)
