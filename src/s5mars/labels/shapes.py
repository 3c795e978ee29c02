"""The pixels of polygons, rectangles and ellipses, as label tools paint them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from s5mars.labels.regions import Region, Size
from s5mars.products.errors import MAX_PIXELS

LONGEST_OUTLINE = 20_000_000
"""Pixels along the outline of a polygon: its drawing takes 40 times as many bytes."""

_TOLERANCE = 1.0
"""Pixels by which an outline may leave the image before that is reported."""

_FAR = 1e7
"""Pixels from the image beyond which a coordinate is an error."""


def size_of(width: object, height: object) -> Size:
    """A size that an export states.

    Raises:
        ValueError: if it is not two whole numbers, or too large to be an image.
    """
    numbers = []
    for value in (width, height):
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{width!r}×{height!r} is not the size of an image")
        numbers.append(value)
    if numbers[0] * numbers[1] > MAX_PIXELS:
        raise ValueError(f"{width}×{height} pixels are more than the limit of {MAX_PIXELS:,}")
    return numbers[0], numbers[1]


def outline(points: Any) -> NDArray[np.float64]:
    """(N, 2) x and y of a polygon's points.

    Raises:
        ValueError: if they are fewer than three, or a number is not finite or far outside.
    """
    if not isinstance(points, Sequence | np.ndarray) or isinstance(points, str):
        raise ValueError("a polygon must be a list of points")
    array = np.array([[number(value) for value in point] for point in points], np.float64)
    if array.ndim != 2 or array.shape[1] != 2 or len(array) < 3:
        raise ValueError(f"a polygon needs at least three points (x, y), not {len(points)}")
    return array


def number(value: object) -> float:
    """A coordinate.

    Raises:
        ValueError: if it is no number, or not finite, or far outside any image.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise ValueError(f"{value!r} is not a number")
    result = float(value)
    if not abs(result) <= _FAR:
        raise ValueError(f"{value!r} is not a coordinate in an image")
    return result


def filled(label: str, outlines: Sequence[NDArray[np.float64]], size: Size) -> Region:
    """The union of polygons as the COCO API fills them, which CVAT uses, too.

    Args:
        outlines: (N, 2) x and y each; (0, 0) is the upper left corner of the image.
    """
    width, height = size
    clipped = [part for each in outlines for part in _clipped(each, size)]
    if not clipped:
        return Region(label, np.zeros((0, 0), bool), cut=True)
    parts = coco_mask.frPyObjects([part.ravel().tolist() for part in clipped], height, width)
    mask = coco_mask.decode(coco_mask.merge(parts)).astype(bool)
    return windowed(label, mask, cut=any(_reaches_beyond(each, size) for each in outlines))


def drawn(label: str, points: NDArray[np.float64], size: Size) -> Region:
    """A polygon as Pillow fills it, with its outline, as labelme does.

    Args:
        points: (N, 2) x and y; (0, 0) is the upper left pixel of the image.
    """
    canvas = Image.new("1", size)
    draw = ImageDraw.Draw(canvas)
    for part in _clipped(points, size):
        draw.polygon([(x, y) for x, y in part.tolist()], outline=1, fill=1)
    return windowed(label, np.array(canvas), cut=_reaches_beyond(points, size))


def circle(label: str, x: float, y: float, radius: float, size: Size) -> Region:
    """A circle around the pixel (x, y) as Pillow fills it, with its outline, as labelme does."""
    around = ellipse(x, y, radius, radius)
    if _reaches_beyond(outline(around), size):
        return drawn(label, around, size)  # a part of its outline, which may be very long
    canvas = Image.new("1", size)
    box = (x - radius, y - radius, x + radius, y + radius)
    ImageDraw.Draw(canvas).ellipse(box, outline=1, fill=1)
    return windowed(label, np.array(canvas))


def rectangle(
    x: float, y: float, width: float, height: float, *, degrees: float = 0.0, about: str = "corner"
) -> NDArray[np.float64]:
    """(4, 2) corners of a rectangle in pixels, whose upper left one is (x, y) before the turn.

    Args:
        degrees: angle of the turn.
        about: ``"corner"`` (the upper left one, as in Label Studio) or ``"centre"`` (as in CVAT).
    """
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    pivot = np.array((width / 2, height / 2) if about == "centre" else (0.0, 0.0))
    return _turned(corners - pivot, degrees, to=pivot + np.array((x, y)))


def ellipse(
    x: float, y: float, radius_x: float, radius_y: float, *, degrees: float = 0.0
) -> NDArray[np.float64]:
    """(360, 2) points of an ellipse around (x, y) that is turned clockwise."""
    angles = np.deg2rad(np.arange(360.0))
    points = np.stack([radius_x * np.cos(angles), radius_y * np.sin(angles)], 1)
    return _turned(points, degrees, to=np.array((x, y)))


def _turned(
    points: NDArray[np.float64], degrees: float, *, to: NDArray[np.float64]
) -> NDArray[np.float64]:
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turned: NDArray[np.float64] = points @ np.array([(cosine, sine), (-sine, cosine)])  # y is down
    return turned + to


def _reaches_beyond(points: NDArray[np.float64], size: Size) -> bool:
    low, high = points.min(0), points.max(0)
    return bool((low < -_TOLERANCE).any() or (high > np.array(size) + _TOLERANCE).any())


def _clipped(points: NDArray[np.float64], size: Size) -> list[NDArray[np.float64]]:
    """What of a polygon lies in or near the image: far points would take memory and time."""
    parts = [points]
    if _reaches_beyond(points, size):
        # Heavy, and most polygons lie inside.
        from matplotlib.path import Path as Polygon
        from matplotlib.transforms import Bbox

        margin = 2 * _TOLERANCE  # new edges along the box lie outside the image
        box = Bbox([(-margin, -margin), (size[0] + margin, size[1] + margin)])
        closed = Polygon(np.concatenate([points, points[:1]]), closed=True)
        found = (np.asarray(part) for part in closed.clip_to_bbox(box).to_polygons())
        parts = [part for part in found if len(part) > 2]
    if sum(np.abs(np.diff(part, axis=0)).max(1).sum() for part in parts) > LONGEST_OUTLINE:
        raise ValueError(f"the outline is longer than {LONGEST_OUTLINE:,} pixels")
    return parts


def windowed(label: str, mask: NDArray[np.bool_], *, cut: bool = False) -> Region:
    """The region of an (H, W) mask of an image, without what lies around it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return Region(label, np.zeros((0, 0), bool), cut=cut)
    top, left = int(rows[0]), int(columns[0])
    return Region(label, mask[top : rows[-1] + 1, left : columns[-1] + 1], left, top, cut)
