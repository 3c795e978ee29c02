"""CVAT's own format, "CVAT for images 1.1": one XML file.

Masks, polygons, rectangles and ellipses are painted by ascending ``z_order``, then in the order of
the file; other shapes have no area. Run lengths of a mask go row by row through its box, from a run
of unpainted pixels on.

Source: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat and
``cvat/apps/dataset_manager/formats/cvat.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

import numpy as np

from s5mars.classes import Colour
from s5mars.errors import UserError
from s5mars.files.reading import reading
from s5mars.labels import shapes
from s5mars.labels.colours import shown_colour
from s5mars.labels.regions import MAX_JSON, REMEDY, Entry, Export, Note, Region, Size, attempt
from s5mars.text.numbers import plural

TITLE = "CVAT for images 1.1 (XML)"

_PAINTED = ("mask", "polygon", "box", "ellipse")

_WITHOUT_AREA = frozenset({"polyline", "points", "cuboid", "skeleton", "tag"})


def is_cvat_xml(path: Path) -> bool:
    """Whether a file is of this format; only its head is read."""
    with reading(path, kind="XML file", remedy=REMEDY), path.open("rb") as file:
        head = file.read(4096)
    return path.suffix.lower() == ".xml" and b"<annotations" in head


def read(paths: Sequence[Path]) -> Export:
    """The labels of XML files.

    Raises:
        DamagedFileError: if a file is no XML.
        UserError: if it is the export of a video.
    """
    roots = {path: _parsed(path) for path in paths}
    labels: dict[str, Colour | None] = {}
    for path, root in roots.items():
        if root.find("track") is not None and root.find("image") is None:
            raise UserError(
                f"{path} is an export of a video; export the task as 'CVAT for images 1.1'"
            )
        for label in root.iterfind("meta//labels/label"):
            name = label.findtext("name")
            if (
                name
                and label.findtext("type") not in _WITHOUT_AREA
                and not label.findtext("parent")
            ):
                labels.setdefault(name, shown_colour(label.findtext("color")))

    known = frozenset(labels)

    def entry(path: Path, image: ElementTree.Element) -> Entry:
        size, sides = None, ("width", "height")
        if image.attrib.keys() >= {*sides}:
            size = shapes.size_of(*(int(image.attrib[side]) for side in sides))
        return Entry((image.attrib["name"],), path, size, partial(_regions, path, image, known))

    def entries() -> Iterator[Entry | Note]:
        for path, root in roots.items():
            for place, image in enumerate(root.iterfind("image")):
                yield attempt(path, f"image {place}", partial(entry, path, image))

    return Export(TITLE, entries, labels)


def _parsed(path: Path) -> ElementTree.Element:
    with reading(path, kind="XML file", remedy=REMEDY), path.open("rb") as file:
        content = file.read(MAX_JSON + 1)
        if len(content) > MAX_JSON:
            raise ValueError(f"larger than the limit of {MAX_JSON:,} bytes")
        parser = ElementTree.XMLParser(target=_WithoutEntities())
        parser.feed(content)
        root: ElementTree.Element = parser.close()
        return root


class _WithoutEntities(ElementTree.TreeBuilder):
    """Entities, which a document type declares, can fill any memory."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        """Refuse it."""
        raise ValueError("it declares a document type, which files of CVAT never have")


def _regions(
    path: Path, image: ElementTree.Element, known: frozenset[str], size: Size
) -> Iterator[Region | Note]:
    left_out: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    painted: list[tuple[int, ElementTree.Element]] = []
    for shape in image:
        label = shape.get("label")
        if shape.tag not in _PAINTED:
            left_out[shape.tag] += 1
        elif label is None or (known and label not in known):
            unknown[str(label)] += 1
        else:
            order = shape.get("z_order", "0")
            painted.append((int(order) if order.removeprefix("-").isdecimal() else 0, shape))
    for place, (_, shape) in enumerate(sorted(painted, key=lambda pair: pair[0])):
        kind = f"{shape.tag} {place} ({shape.get('label')}) of {image.get('name')}"
        yield attempt(path, kind, partial(_region, shape, size))
    for tag, amount in left_out.items():
        yield f"{plural(amount, 'annotation')} of the type {tag}, which has no area"
    for label, amount in unknown.items():
        yield f"{plural(amount, 'annotation')} of the unknown label {label!r}"


def _region(shape: ElementTree.Element, size: Size) -> Region:
    label, get = shape.attrib["label"], shape.attrib
    if shape.tag == "mask":
        left, top = int(get["left"]), int(get["top"])
        width, height = shapes.size_of(int(get["width"]), int(get["height"]))
        runs = np.array([int(run) for run in get["rle"].split(",")], np.int64)
        if (runs < 0).any() or runs.sum() != width * height:
            raise ValueError(
                f"the runs have {runs.sum():,} pixels, but the mask has {width}×{height}"
            )
        values = np.arange(len(runs)) % 2 == 1
        return Region(label, np.repeat(values, runs).reshape(height, width), left, top)
    if shape.tag == "polygon":
        points: list[Any] = [
            [float(value) for value in point.split(",")] for point in get["points"].split(";")
        ]
        return shapes.filled(label, [shapes.outline(points)], size)
    degrees = shapes.number(float(get.get("rotation", "0")))
    if shape.tag == "box":
        x0, y0, x1, y1 = (shapes.number(float(get[key])) for key in ("xtl", "ytl", "xbr", "ybr"))
        corners = shapes.rectangle(x0, y0, x1 - x0, y1 - y0, degrees=degrees, about="centre")
        return shapes.filled(label, [shapes.outline(corners)], size)
    x, y, radius_x, radius_y = (shapes.number(float(get[key])) for key in ("cx", "cy", "rx", "ry"))
    turned = shapes.ellipse(x, y, radius_x, radius_y, degrees=degrees)
    return shapes.filled(label, [shapes.outline(turned)], size)
