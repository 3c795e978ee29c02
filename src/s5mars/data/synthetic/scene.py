"""One scene from first draw to image and mask: a pure function of (seed, index, size)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from s5mars.classes import IGNORE
from s5mars.data.synthetic.annotate import annotate
from s5mars.data.synthetic.camera import Array, Camera, Grid, vector
from s5mars.data.synthetic.marks import Hole, Track, drill, drive
from s5mars.data.synthetic.rocks import Rock, cast_shadow, draw_rock, scatter
from s5mars.data.synthetic.rover import Canvas, draw_arm, draw_deck, draw_wheel, dust_over
from s5mars.data.synthetic.sky import paint_ridges, paint_sky
from s5mars.data.synthetic.terrain import BEDROCK, ROCK, Geology, Ground, lay_ground
from s5mars.errors import UserError
from s5mars.randomness import generator

_MEAN = (0.625, 0.519, 0.363)  # table II: standard deviation / coefficient of variation
_DEVIATION = (0.134, 0.121, 0.099)  # table II

_CONTENTS = (  # what ten scenes in a row show, in an order that changes from ten to ten
    "vista", "vista", "vista", "vista trace", "vista deck",
    "ground", "ground trace", "ground trace wheel", "close hole", "close hole arm",
)  # fmt: skip

SMALLEST = 32
"""Smallest side in pixels; smaller scenes show nothing that can be labelled."""


def render_scene(
    size: int, *, seed: int, index: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Render one synthetic Mars scene with its sparse label.

    Args:
        size: width and height in pixels, at least 32. The same scene at another size shows the
            same things.
        seed: of the set of scenes.
        index: number of the scene in its set, from 0.

    Returns:
        The image, (size, size, 3) uint8 RGB, and the label, (size, size) uint8 index into
        ``s5mars.classes.S5MARS``, 255 where no annotator would be sure or had the time.

    Raises:
        UserError: if the size is below 32 or the index is negative.
    """
    if size < SMALLEST:
        raise UserError(f"size must be at least {SMALLEST} pixels (got {size})")
    if index < 0:
        raise UserError(f"index must be at least 0 (got {index})")
    image, classes = _render(size, seed, index)
    rng = generator(seed, "synthetic annotation", sample=index)
    label = annotate(rng, classes, float(np.clip(rng.normal(0.467, 0.10), 0.25, 0.75)))
    return image, label


def _content(seed: int, index: int) -> list[str]:
    ten, place = divmod(index, len(_CONTENTS))
    order = generator(seed, "synthetic stories", sample=ten).permutation(len(_CONTENTS))
    return _CONTENTS[int(order[place])].split()


def _render(size: int, seed: int, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The image and the class of every pixel; IGNORE where two materials mix."""
    content = _content(seed, index)

    def draws(purpose: str) -> np.random.Generator:
        return generator(seed, f"synthetic {purpose}", sample=index)

    rng = draws("plan")
    view, elements = content[0], content[1:]
    camera, scale = _camera(rng, size, view)
    geology = Geology.draw(rng)
    turn, rise = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(28, 62))
    sun = (
        float(np.cos(rise) * np.sin(turn)), float(np.sin(rise)), float(np.cos(rise) * np.cos(turn))
    )  # fmt: skip
    ambient = rng.uniform(0.32, 0.55)
    red, green, blue = (np.array([0.98, 0.865, 0.685]) + rng.normal(0, 0.03, 3)).tolist()
    haze = (red, green, blue)
    clear = float(np.exp(rng.uniform(np.log(35), np.log(250))))  # metres of sight

    grid = camera.grid()
    ground = lay_ground(draws("ground"), grid, geology, scale=scale)
    marks = draws("marks")
    if "trace" in elements:
        drive(marks, grid, ground, _track(marks, camera, wheel="wheel" in elements))
    hole = None
    if "hole" in elements:
        hole = _hole(marks, camera)
        drill(marks, grid, ground, hole)

    image, classes = paint_sky(draws("sky"), camera, haze)
    if camera.horizon > 0:
        paint_ridges(
            draws("ridges"), camera, image, classes,
            haze=haze, dust=rng.uniform(0.15, 0.5), colour=geology.colours[BEDROCK],
            side=float(np.clip(sun[0] * 1.5, -1, 1)),
        )  # fmt: skip
    depth = _paint_ground(
        draws("rocks"), camera, grid, ground, geology, image, classes,
        sun=sun, ambient=ambient, scale=scale, close=view == "close",
    )  # fmt: skip
    sight = np.exp(-depth / np.float32(clear))[..., None]
    seen = np.isfinite(depth)[..., None]
    image = np.where(seen, image * sight + vector(haze) * (1 - sight), image)

    canvas = Canvas(image, classes, sun, ambient)
    parts = draws("rover")
    if "deck" in elements:
        draw_deck(parts, canvas, camera)
    if "wheel" in elements:
        column = parts.uniform(0.14, 0.26)
        column = column if parts.uniform() < 0.5 else 1 - column
        draw_wheel(parts, canvas, camera, column=column, row=parts.uniform(0.78, 0.95))
    if "arm" in elements and hole is not None:
        at, down = camera.project(hole.x, 0, hole.z)
        tip = (at / size + (0.26 if at < size / 2 else -0.26), max(down / size - 0.28, 0.12))
        draw_arm(parts, canvas, tip=tip)
    dust_over(parts, canvas, geology.colours[BEDROCK])
    return _expose(draws("exposure"), image, classes), classes


def _camera(rng: np.random.Generator, size: int, view: str) -> tuple[Camera, float]:
    """A camera for the view, and the size of the features it looks at."""
    focal = rng.uniform(0.95, 1.35)
    if view == "vista":
        return Camera(size, focal, rng.uniform(1.5, 2.1), rng.uniform(0.2, 0.5)), 1.0
    if view == "ground":
        return Camera(size, focal, rng.uniform(1.4, 2.0), rng.uniform(-0.5, -0.12)), 0.8
    return Camera(size, focal, rng.uniform(0.9, 1.2), rng.uniform(-0.9, -0.5)), 0.45


def _track(rng: np.random.Generator, camera: Camera, *, wheel: bool) -> Track:
    z = camera.depth(rng.uniform(0.6, 0.8))
    unit = z / camera.focal  # metres that an image width shows there
    gauge = rng.uniform(0.38, 0.55) * unit
    return Track(
        x=rng.uniform(-0.2, 0.2) * unit,
        z=z,
        turn=rng.normal(0, 0.35) if not wheel else rng.normal(0, 0.6),
        bend=rng.normal(0, 0.05) / unit,
        gauge=gauge,
        wheel=rng.uniform(0.10, 0.15) * unit,
        cleat=rng.uniform(0.032, 0.05) * unit,
        depth=rng.uniform(0.006, 0.011) * unit,
    )


def _hole(rng: np.random.Generator, camera: Camera) -> Hole:
    z = camera.depth(rng.uniform(0.45, 0.75))
    unit = z / camera.focal
    return Hole(
        x=rng.uniform(-0.25, 0.25) * unit,
        z=z,
        radius=rng.uniform(0.022, 0.05) * unit,
        heap=rng.uniform(2.4, 4.2),
    )


def _paint_ground(
    rng: np.random.Generator,
    camera: Camera,
    grid: Grid,
    ground: Ground,
    geology: Geology,
    image: Array,
    classes: NDArray[np.uint8],
    *,
    sun: tuple[float, float, float],
    ambient: float,
    scale: float,
    close: bool,
) -> Array:
    """Paint ground and rocks; returns the distance in metres (S, S), infinite on the sky."""
    along_x, along_z = grid.slopes(ground.height)
    steep = 1 / np.sqrt(1 + along_x**2 + along_z**2)
    sun_light = np.clip((sun[1] - sun[0] * along_x - sun[2] * along_z) * steep, 0, None) / sun[1]
    np.clip(sun_light, 0, 1.9, out=sun_light)
    hollow = ground.height - ndimage.uniform_filter(ground.height, max(3, camera.size // 30))
    sky_light = np.clip(1 + hollow * (7 / scale), 0.55, 1.2) * (0.4 + 0.6 * steep)
    stack = np.concatenate(
        [
            ground.albedo,
            np.stack([sun_light, sky_light, grid.x, grid.z, ground.certainty], -1),
        ],
        -1,
        dtype=np.float32,
    )
    visible = grid.visible(ground.height)
    read = visible.read(stack)
    albedo, (direct, diffuse, x, z, certainty) = read[..., :3], np.moveaxis(read[..., 3:], -1, 0)
    seen = visible.ground

    rocks = _rocks(rng, camera, geology, grid, ground.height, close=close)
    light = np.ones_like(direct)
    for rock in rocks:
        cast_shadow(light, rock, camera, x, z, sun)
    shade = ambient * diffuse * (0.55 + 0.45 * light) + (1 - ambient) * direct * light
    painted = albedo * shade[..., None]
    image[seen] = painted[seen]
    nearest = visible.index - camera.size * (visible.share < 0.5)
    label = ground.classes.ravel()[nearest]
    label = np.where(certainty < 0.35, np.uint8(IGNORE), label)
    label = np.where(light < 0.6, np.uint8(IGNORE), label)  # annotators leave out shadows
    classes[seen] = label[seen]

    depth = np.where(seen, z, np.float32(np.inf))
    for rock in rocks:
        share = rock.radius / rock.z * camera.focal  # of the image width
        # Small stones belong to the soil that they lie in, those between are a matter of taste.
        kind = ROCK if share > 0.015 else IGNORE
        target = classes if share > 0.006 else np.zeros_like(classes)
        draw_rock(image, target, depth, rock, camera, sun=sun, ambient=ambient, label=kind)
    return depth


def _rocks(
    rng: np.random.Generator,
    camera: Camera,
    geology: Geology,
    grid: Grid,
    height: Array,
    *,
    close: bool,
) -> list[Rock]:
    """Rocks on the visible ground, the farthest first."""
    count = int(rng.integers(3, 14) if close else np.exp(rng.uniform(np.log(3), np.log(90))))
    largest = rng.uniform(0.04, 0.15) if not close else rng.uniform(0.03, 0.07)
    base = np.array(geology.colours[ROCK])
    rocks = []
    for at, distance, radius in scatter(
        rng, camera, count=count, largest=largest, stony=rng.uniform(0.2, 0.9)
    ):
        tint, squash = rng.normal(0, 0.035), rng.uniform(0.5, 0.95)
        shape = int(rng.integers(2**31))
        row = min(int(np.searchsorted(grid.z[:, 0], distance)), grid.shape[0] - 1)
        column = min(max(int(camera.project(at, 0, distance)[0]), 0), camera.size - 1)
        level = float(height[row, column])
        red, green, blue = (base + tint).tolist()
        rocks.append(Rock(at, level, distance, radius, squash, (red, green, blue), shape))
    return rocks


def _expose(
    rng: np.random.Generator, image: Array, classes: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Exposure, colour cast, blur, vignette and noise of the camera; the range of table II."""
    size = image.shape[0]
    mean, deviation = image.mean((0, 1)), image.std((0, 1))
    # As an automatic exposure, but one that misses: scenes stay darker or flatter than others.
    contrast = float(np.mean(np.divide(_DEVIATION, np.maximum(deviation, 0.02))))
    contrast = float(np.clip(contrast, 0.6, 1.8)) * rng.uniform(0.7, 1.08)
    cast = 1 + rng.normal(0, 0.06) * np.array([-0.4, 0.15, 1.0]) + rng.normal(0, 0.012, 3)
    level = np.array(_MEAN) * (1.025 + rng.normal(0, 0.11)) * cast
    level = level + (mean - mean.mean() - (np.array(_MEAN) - np.mean(_MEAN))) * 0.5
    image = (image - mean) * np.float32(contrast) + level.astype(np.float32)
    blur = rng.uniform(0.0, 0.9) * size / 512
    if blur > 0.2:
        image = ndimage.gaussian_filter(image, (blur, blur, 0))
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    image = image * (1 - rng.uniform(0, 0.22) * (x * x + y * y))[..., None]
    grain = rng.standard_normal((size, size), np.float32)[..., None] * 0.008
    image = image + grain + rng.standard_normal(image.shape, np.float32) * 0.005
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
