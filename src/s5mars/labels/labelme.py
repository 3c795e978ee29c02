"""labelme: a JSON file beside each image.

Polygons, rectangles, turned rectangles, circles and masks are painted in the order of the file; all
shapes of a group are painted alike. Points and lines have no area. ``__ignore__`` is no class.
X-AnyLabeling writes such files, too, with all four corners of a rectangle.

Source: labelme's ``LabelFile`` and ``shape_to_mask``. A shape of the type ``mask`` has its upper
left and lower right pixel as points, both inside, and a PNG of 0 and 1 in base64.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.classes import Taxonomy
from s5mars.files import below, write_text
from s5mars.files.reading import read_json
from s5mars.labels import pictures, shapes
from s5mars.labels.naming import LEFT_OUT
from s5mars.labels.regions import (
    MAX_JSON,
    REMEDY,
    Entry,
    Export,
    Note,
    Region,
    Size,
    Writer,
    attempt,
)
from s5mars.text.numbers import plural

TITLE = "labelme JSON"

_IGNORED = "__ignore__"
_WITHOUT_AREA = ("point", "points", "line", "linestrip")


def is_labelme(content: object) -> bool:
    """Whether parsed JSON is of this format."""
    return (
        isinstance(content, dict)
        and isinstance(content.get("shapes"), list)
        and "imagePath" in content
    )


def read(root: Path, files: Sequence[Path]) -> Export:
    """The labels of the JSON files below a folder, read one at a time."""

    def entry(path: Path) -> Entry | Note:
        content = read_json(path, kind="labelme file", remedy=REMEDY, limit=MAX_JSON)
        if not is_labelme(content):
            return f"{path}: not a file of labelme (no shapes and imagePath)"
        return _entry(path, path.relative_to(root), content)

    def entries() -> Iterator[Entry | Note]:
        for path in files:
            yield attempt(path, "labelme file", partial(entry, path))

    return Export(TITLE, entries)


def _entry(path: Path, name: Path, content: dict[str, Any]) -> Entry:
    width, height = content.get("imageWidth"), content.get("imageHeight")
    size = None if width is None or height is None else shapes.size_of(width, height)
    given = str(content["imagePath"]).replace("\\", "/")
    beside = (name.parent / given).as_posix()
    names = (beside, given, name.with_suffix("").as_posix())
    return Entry(names, path, size, partial(_regions, path, content["shapes"]))


def _regions(path: Path, given: list[Any], size: Size) -> Iterator[Region | Note]:
    left_out: Counter[str] = Counter()
    for place, shape in enumerate(given):
        label = shape.get("label") if isinstance(shape, dict) else None
        kind = shape.get("shape_type") if isinstance(shape, dict) else None
        if kind in _WITHOUT_AREA:
            left_out[kind] += 1
        else:
            what = f"shape {place} ({label})"
            yield attempt(path, what, partial(_region, shape, size))
    for kind, amount in left_out.items():
        yield f"{plural(amount, 'shape')} of the type {kind}, which has no area"


def _region(shape: dict[str, Any], size: Size) -> Region:
    label = str(shape["label"])
    label = LEFT_OUT if label == _IGNORED else label
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    if kind == "mask":
        mask = pictures.from_base64(shape["mask"])
        left, top = (round(float(value)) for value in points[0])
        return Region(label, mask, left, top)
    corners = kind == "rectangle" and len(points) == 4
    if corners or kind in ("polygon", "oriented_rectangle", "rotation"):
        return shapes.drawn(label, shapes.outline(points), size)
    if kind in ("rectangle", "circle"):
        (x0, y0), (x1, y1) = points
        if kind == "circle":
            return shapes.circle(label, x0, y0, float(np.hypot(x1 - x0, y1 - y0)), size)
        return shapes.drawn(label, shapes.outline([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), size)
    raise ValueError(f"unknown shape type {kind!r}")


@contextmanager
def writing(out: Path, taxonomy: Taxonomy) -> Iterator[Writer]:
    """A writer of a JSON file beside each image; ``labelme OUT`` opens them."""

    def add(file_name: str, labels: NDArray[np.uint8]) -> None:
        height, width = labels.shape
        image = below(out, file_name, source="export-labels")
        described: list[dict[str, object]] = []
        for index in np.unique(labels[labels < len(taxonomy)]).tolist():
            part = shapes.windowed(taxonomy.names[index], labels == index)
            left, top = float(part.left), float(part.top)
            rows, columns = part.mask.shape
            described.append(
                {
                    "label": part.label,
                    "points": [[left, top], [left + columns - 1, top + rows - 1]],
                    "group_id": None,
                    "description": "",
                    "shape_type": "mask",
                    "flags": {},
                    "mask": pictures.to_base64(part.mask),
                }
            )
        content = {
            "version": "5.5.0",  # the first ones that know masks are of 2023
            "flags": {},
            "shapes": described,
            "imagePath": image.name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        write_text(image.with_suffix(".json"), json.dumps(content, ensure_ascii=False, indent=1))

    yield Writer(out, out, add)
