"""Parts of the rover in the view: deck plate, wheel, arm. Hard edges, flat shading."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from s5mars.data.synthetic.camera import Array, Camera, vector
from s5mars.data.synthetic.noise import Wave
from s5mars.data.synthetic.terrain import ROVER

Colour = tuple[float, float, float]
Point = tuple[float, float]

_WHITE: Colour = (0.95, 0.915, 0.85)
_METAL: Colour = (0.56, 0.545, 0.52)
_DARK: Colour = (0.20, 0.19, 0.185)
_GOLD: Colour = (0.62, 0.47, 0.22)
_OVERSAMPLING = 4


@dataclass
class Canvas:
    """The image (S, S, 3), the class map (S, S) and the direction to the sun."""

    image: Array
    classes: NDArray[np.uint8]
    sun: tuple[float, float, float]
    ambient: float

    @property
    def size(self) -> int:
        """Pixels a side."""
        return int(self.image.shape[0])

    def shade(self, normal: tuple[float, float, float]) -> float:
        """Brightness of a plane with this normal (x right, y up, z away from the camera)."""
        length = float(np.linalg.norm(normal))
        facing = max(float(np.dot(normal, self.sun)) / length, 0.0)
        sky = 0.5 + 0.5 * normal[1] / length
        return self.ambient * (0.4 + 0.6 * sky) + (1 - self.ambient) * facing / 0.75

    def polygon(self, points: list[Point], colour: Colour, shade: float = 1.0) -> None:
        """Fill a polygon of (column, row) pixels with smooth edges."""
        cover, window = self._cover(points)
        if cover is None:
            return
        patch = self.image[window]
        patch += (vector(colour) * np.float32(shade) - patch) * cover[..., None]
        self.classes[window][cover > 0.5] = ROVER

    def disc(
        self, centre: Point, width: float, height: float, colour: Colour, shade: float
    ) -> None:
        """Fill an upright ellipse; half axes in pixels."""
        turn = np.linspace(0, 2 * np.pi, 33)[:-1]
        points = [
            (centre[0] + width * float(np.cos(t)), centre[1] + height * float(np.sin(t)))
            for t in turn
        ]
        self.polygon(points, colour, shade)

    def tube(self, start: Point, end: Point, width: tuple[float, float], colour: Colour) -> None:
        """A cylinder between two points; half widths in pixels at both ends."""
        axis = np.subtract(end, start)
        length = float(np.hypot(*axis))
        if length < 1e-3:
            return
        axis = axis / length
        right = np.array([-axis[1], axis[0]])
        first, last = width[0] * right, width[1] * right
        corners = [start + first, end + last, end - last, start - first]
        cover, window = self._cover([(float(x), float(y)) for x, y in corners])
        if cover is None:
            return
        y = np.arange(window[0].start, window[0].stop, dtype=np.float32)[:, None] + 0.5 - start[1]
        x = np.arange(window[1].start, window[1].stop, dtype=np.float32)[None, :] + 0.5 - start[0]
        along = np.clip((x * axis[0] + y * axis[1]) / length, 0, 1)
        half = width[0] + (width[1] - width[0]) * along
        across = np.clip((x * right[0] + y * right[1]) / half, -1, 1)
        toward = np.sqrt(1 - across**2)
        normal = np.stack([right[0] * across, -right[1] * across, -toward], -1).astype(np.float32)
        facing = np.clip(normal @ vector(self.sun), 0, 1)
        shade = self.ambient * (0.55 + 0.35 * normal[..., 1]) + (1 - self.ambient) * facing / 0.75
        shade += 0.25 * self.ambient * toward
        patch = self.image[window]
        patch += (vector(colour) * shade[..., None] - patch) * cover[..., None]
        self.classes[window][cover > 0.5] = ROVER

    def _cover(self, points: list[Point]) -> tuple[Array | None, tuple[slice, slice]]:
        x, y = np.array(points).T
        left, top = max(int(np.floor(x.min())), 0), max(int(np.floor(y.min())), 0)
        right = min(int(np.ceil(x.max())) + 1, self.size)
        bottom = min(int(np.ceil(y.max())) + 1, self.size)
        window = (slice(top, bottom), slice(left, right))
        if right <= left or bottom <= top:
            return None, window
        n = _OVERSAMPLING
        stencil = Image.new("L", ((right - left) * n, (bottom - top) * n))
        outline = [((px - left) * n, (py - top) * n) for px, py in zip(x, y, strict=True)]
        ImageDraw.Draw(stencil).polygon(outline, fill=255)
        small = stencil.resize((right - left, bottom - top), Image.Resampling.BOX)
        return np.asarray(small, np.float32) / 255, window


def draw_deck(rng: np.random.Generator, canvas: Canvas, camera: Camera) -> None:
    """The rover's back in the foreground: a plate with seams, bolts, boxes and a cable."""
    row = rng.uniform(0.66, 0.8)
    drop = 0.9
    level = camera.height - drop
    far = camera.depth(row, height=level)
    near = camera.depth(1.6, height=level)
    middle = rng.uniform(-0.25, 0.25) * far
    turn = rng.uniform(-0.3, 0.3)
    half = rng.uniform(0.30, 0.5) * far / camera.focal

    def at(across: float, down: float, rise: float = 0.0) -> Point:
        """Deck coordinates: -1..1 to the right, 0 (far edge) .. 1 → pixels."""
        x, z = across * half, far - (far - near) * down
        return camera.project(middle + x + turn * (z - far), level + rise, z + turn * x * 0.6)

    def quad(a0: float, d0: float, a1: float, d1: float, rise: float = 0.0) -> list[Point]:
        return [at(a0, d0, rise), at(a1, d0, rise), at(a1, d1, rise), at(a0, d1, rise)]

    up = canvas.shade((0, 1, 0))
    facing = canvas.shade((0, 0, -1))
    thickness = -0.10
    canvas.polygon(
        [at(-1, 0), at(1, 0), at(1, 1, thickness), at(1, 1), at(-1, 1), at(-1, 1, thickness)],
        _DARK,
        0.8,
    )
    canvas.polygon(quad(-1, 0, 1, 1), _WHITE, up)
    shades = rng.uniform(0.88, 1.02, (3, 3))
    edges_across, edges_down = (-1.0, -0.3, 0.35, 1.0), (0.0, 0.22, 0.5, 1.0)
    for i in range(3):
        for j in range(3):
            a0, a1 = edges_across[i] + 0.012, edges_across[i + 1] - 0.012
            d0, d1 = edges_down[j] + 0.006, edges_down[j + 1] - 0.006
            seam = quad(a0 - 0.02, d0 - 0.01, a1 + 0.02, d1 + 0.01)
            canvas.polygon(seam, _DARK, 0.9)
            canvas.polygon(quad(a0, d0, a1, d1), _WHITE, up * float(shades[i, j]))
            for a in np.linspace(a0 + 0.05, a1 - 0.05, 5):
                for d in (d0 + 0.02, d1 - 0.02):
                    x, y = at(float(a), float(d))
                    canvas.disc((x, y), 0.004 * canvas.size, 0.003 * canvas.size, _DARK, 1.0)
    for a0, a1, d0, d1, rise, colour in (
        (rng.uniform(-0.85, -0.6), -0.35, 0.06, 0.20, rng.uniform(0.06, 0.2), _WHITE),
        (rng.uniform(0.1, 0.3), 0.62, 0.04, 0.16, rng.uniform(0.04, 0.12), _METAL),
        (0.7, 0.93, 0.10, 0.30, rng.uniform(0.05, 0.22), _GOLD),
    ):
        canvas.polygon(  # front
            [at(a0, d1), at(a1, d1), at(a1, d1, rise), at(a0, d1, rise)], colour, facing
        )
        inner = a0 if middle + a0 * half > 0 else a1  # only the side towards the middle is seen
        side = canvas.shade((-1 if inner == a0 else 1, 0, 0))
        canvas.polygon(
            [at(inner, d0), at(inner, d1), at(inner, d1, rise), at(inner, d0, rise)], colour, side
        )
        canvas.polygon(quad(a0, d0, a1, d1, rise), colour, up)
    x, y = at(-0.02, 0.12)
    big = 0.032 * canvas.size
    for part, colour in ((1.0, _DARK), (0.85, _WHITE), (0.55, _METAL), (0.22, _DARK)):
        canvas.disc((x, y), big * part, 0.6 * big * part, colour, up)
    canvas.tube((x, y), (x, y - 0.045 * canvas.size), (1.2, 0.8), _DARK)
    previous = at(-0.95, 0.33)
    for a in np.linspace(-0.95, 0.95, 14)[1:]:
        following = at(float(a), 0.33 + 0.03 * float(np.sin(5 * a)))
        thick = 0.005 * canvas.size
        canvas.tube(previous, following, (thick, thick), _DARK)
        previous = following


def draw_wheel(
    rng: np.random.Generator, canvas: Canvas, camera: Camera, *, column: float, row: float
) -> None:
    """A wheel that stands on the ground at (column, row) image widths, and the leg above it."""
    z = camera.depth(row)
    x = (column - 0.5) * z / camera.focal
    radius = rng.uniform(0.10, 0.15) * z / camera.focal
    width = 1.5 * radius
    turn = float(np.sign(-x) * rng.uniform(0.5, 0.9))  # shows the face that looks inwards
    axis = np.array([np.cos(turn), 0.0, -np.sin(turn)])
    # The face of the wheel looks along `out`, towards the camera and the middle of the image.
    out = axis * (1 if axis[2] < 0 else -1)
    rolling = np.array([-out[2], 0.0, out[0]])
    up = np.array([0.0, 1.0, 0.0])
    centre = np.array([x, radius * 0.93, z])

    def at(angle: float, part: float, side: float) -> Point:
        place = centre + part * radius * (np.cos(angle) * up + np.sin(angle) * rolling)
        return camera.project(*(place + side * width * out))

    view = centre - np.array([0.0, camera.height, 0.0])
    sections = 44
    step = 2 * np.pi / sections
    for number in range(sections):
        angle = number * step
        normal = np.cos(angle + step / 2) * up + np.sin(angle + step / 2) * rolling
        if float(np.dot(normal, view)) > 0:
            continue
        quad = [at(angle, 1, 0), at(angle + step, 1, 0), at(angle + step, 1, 1), at(angle, 1, 1)]
        shade = canvas.shade((float(normal[0]), float(normal[1]), float(normal[2])))
        # Cleats: every second section stands out and is brighter.
        canvas.polygon(quad, _METAL if number % 2 else _DARK, shade * (1.15 if number % 2 else 1.3))
    face = canvas.shade((float(out[0]), 0.1, float(out[2])))

    def ring(part: float) -> list[Point]:
        return [at(float(a), part, 1.0) for a in np.linspace(0, 2 * np.pi, 49)[:-1]]

    canvas.polygon(ring(1.0), _METAL, 0.5 + 0.6 * face)
    canvas.polygon(ring(0.90), _DARK, 0.55)
    for number in range(6):
        angle = number * np.pi / 3 + 0.3
        canvas.polygon(
            [at(angle - 0.35, 0.2, 1), at(angle + 0.35, 0.2, 1),
             at(angle + 0.32, 0.91, 1), at(angle + 0.18, 0.91, 1)],
            _METAL, 0.45 + 0.6 * face,
        )  # fmt: skip
    canvas.polygon(ring(0.36), _METAL, 0.5 + 0.7 * face)
    canvas.polygon(ring(0.20), _WHITE, 0.4 + 0.7 * face)
    canvas.polygon(ring(0.09), _DARK, 0.8)
    hub = at(0, 0, 1.05)
    size = canvas.size
    knee = (hub[0] + np.sign(column - 0.5) * 0.06 * size, hub[1] - rng.uniform(0.24, 0.34) * size)
    body = (size * (1.06 if column > 0.5 else -0.06), knee[1] - rng.uniform(-0.02, 0.1) * size)
    thick = 0.024 * size
    canvas.tube(knee, body, (thick * 1.25, thick * 1.5), _WHITE)
    canvas.tube(hub, knee, (thick, thick * 1.15), _WHITE)
    canvas.disc(knee, thick * 1.7, thick * 1.7, _METAL, 0.9)
    canvas.disc(knee, thick * 0.9, thick * 0.9, _DARK, 1.0)
    canvas.disc(hub, thick * 1.1, thick * 1.1, _WHITE, 0.85)


def draw_arm(rng: np.random.Generator, canvas: Canvas, *, tip: Point) -> None:
    """The robotic arm from the edge of the image to its turret at ``tip`` (image widths)."""
    size = canvas.size
    left = tip[0] > 0.5
    shoulder = (-0.08 if left else 1.08, rng.uniform(0.55, 1.0))
    reach = 0.5 * (shoulder[0] + tip[0])
    elbow = (
        reach + rng.uniform(-0.08, 0.08),
        max(min(shoulder[1], tip[1]) - rng.uniform(0.16, 0.30), 0.07),
    )
    a, b, c = (
        (float(p[0] * size), float(p[1] * size)) for p in (shoulder, elbow, (tip[0], tip[1]))
    )
    thick = rng.uniform(0.030, 0.042) * size
    canvas.tube(a, b, (thick * 1.3, thick * 1.1), _WHITE)
    _bands(canvas, a, b, thick * 1.25)
    canvas.tube(b, c, (thick, thick * 0.85), _WHITE)
    _bands(canvas, b, c, thick)
    for part, colour, shade in ((1.55, _METAL, 0.95), (1.2, _WHITE, 0.9), (0.5, _DARK, 1.0)):
        canvas.disc(b, thick * part, thick * part, colour, shade)
    # The turret: a drum with instruments around it and the drill pointing down.
    canvas.tube(
        (c[0] - 0.4 * thick, c[1] + thick), (c[0] - 0.4 * thick, c[1] + 3.6 * thick),
        (0.6 * thick, 0.42 * thick), _METAL,
    )  # fmt: skip
    canvas.tube(
        (c[0] - 0.4 * thick, c[1] + 3.5 * thick), (c[0] - 0.4 * thick, c[1] + 4.6 * thick),
        (0.2 * thick, 0.1 * thick), _DARK,
    )  # fmt: skip
    for dx, dy, w, h, colour in (
        (-2.3, -0.6, 0.9, 1.1, _WHITE), (1.2, -1.3, 1.1, 1.0, _GOLD), (1.5, 0.9, 0.9, 0.9, _METAL),
    ):  # fmt: skip
        x, y = c[0] + dx * thick, c[1] + dy * thick
        box = [(x - w * thick, y - h * thick), (x + w * thick, y - h * thick),
               (x + w * thick, y + h * thick), (x - w * thick, y + h * thick)]  # fmt: skip
        lid = [box[0], box[1], (box[1][0] - 0.3 * thick, box[1][1] - 0.4 * thick),
               (box[0][0] + 0.3 * thick, box[0][1] - 0.4 * thick)]  # fmt: skip
        canvas.polygon(box, colour, canvas.shade((0, 0, -1)) * 1.05)
        canvas.polygon(lid, colour, canvas.shade((0, 1, 0)))
        canvas.disc((x, y), 0.45 * thick, 0.45 * thick, _DARK, 1.0)
    for part, colour, shade in ((1.9, _METAL, 0.85), (1.55, _WHITE, 0.9), (0.7, _DARK, 1.1)):
        canvas.disc(c, thick * part, thick * part, colour, shade)


def _bands(canvas: Canvas, start: Point, end: Point, thick: float) -> None:
    for share in (0.25, 0.55, 0.8):
        x, y = (s + (e - s) * share for s, e in zip(start, end, strict=True))
        x1, y1 = (s + (e - s) * (share + 0.03) for s, e in zip(start, end, strict=True))
        canvas.tube((x, y), (x1, y1), (thick * 1.12, thick * 1.12), _METAL)
    lift = 0.75 * thick
    canvas.tube(
        (start[0], start[1] - lift), (end[0], end[1] - lift), (0.16 * thick, 0.16 * thick), _DARK
    )


def dust_over(rng: np.random.Generator, canvas: Canvas, colour: Colour) -> None:
    """Add dust to the rover, so that its plates do not have one flat colour."""
    part = canvas.classes == ROVER
    rows, columns = np.nonzero(part)
    if not rows.size:
        return
    x, y = (columns / canvas.size).astype(np.float32), (rows / canvas.size).astype(np.float32)
    spots = Wave.draw(rng).at(x, y, 0.12) + 0.7 * Wave.draw(rng).at(x, y, 0.04)
    fine = Wave.draw(rng).at(x, y, 0.012)
    amount = np.clip(0.16 + 0.10 * spots, 0.02, 0.5)[:, None]
    old = canvas.image[part]
    bright = old.mean(1, keepdims=True)
    dusty = vector(colour) * (bright / max(float(np.mean(colour)), 1e-3)) ** 0.8
    canvas.image[part] = (old + (dusty - old) * amount) * (1 + 0.01 * fine[:, None])
