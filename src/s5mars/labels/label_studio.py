"""Label Studio: the exports JSON and JSON-MIN, and the brush export as PNG.

Brushes (run lengths), bitmasks, polygons, rectangles and ellipses are painted in the order of the
file. Coordinates are percents of the image's size. Rectangles turn about their upper left corner,
ellipses about their centre. Predictions, drafts and skipped annotations are not labels.

The PNGs are named ``task-ID-annotation-ID-by-USER-TAG-LABEL-NUMBER.png`` and do not tell the image:
a JSON export in the same folder does. What such a JSON has of a task's labels goes before its PNGs.

Source: https://labelstud.io/guide/export and ``label_studio_converter``.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from s5mars.labels import pictures, shapes
from s5mars.labels.brush import decode_brush
from s5mars.labels.regions import Entry, Export, Note, Region, Size, attempt, mask_entry
from s5mars.products.decode import decode_mask
from s5mars.products.files import PRODUCT_ENDINGS
from s5mars.text.numbers import plural

TITLE = "Label Studio"

_PNG = re.compile(r"task-(\d+)-annotation-(\d+)-by-([^-]*)-([^-]+)-(.+)-(\d+)")
_SHAPES = ("brush", "bitmask", "polygon", "rectangle", "ellipse")
_LABELS = "labels"


@dataclass(frozen=True)
class _Task:
    identity: str
    names: tuple[str, ...]
    source: Path
    results: list[dict[str, Any]]
    notes: tuple[Note, ...]


class _Png(NamedTuple):
    """A mask of the brush export; they are painted in the order of annotations, then names."""

    annotation: int
    name: str
    path: Path
    label: str


def is_label_studio(content: object) -> bool:
    """Whether parsed JSON is of this format."""
    return isinstance(content, list) and any(
        isinstance(item, dict)
        and ("data" in item or ("id" in item and bool(_results_of_min(item))))
        for item in content
    )


def is_brush_png(path: Path) -> bool:
    """Whether a file has the name of a brush export."""
    return path.suffix.lower() == ".png" and _PNG.fullmatch(path.stem) is not None


def read(
    contents: Mapping[Path, Any], problems: Sequence[Note], *, pngs: Sequence[Path] = ()
) -> Export:
    """The labels of JSON files and brush PNGs.

    Args:
        pngs: files for which ``is_brush_png`` holds.
    """
    of_task: dict[str, list[_Png]] = defaultdict(list)
    for path in pngs:
        if found := _PNG.fullmatch(path.stem):
            of_task[found[1]].append(_Png(int(found[2]), path.name, path, found[5]))

    def entries() -> Iterator[Entry | Note]:
        yield from problems
        known: set[str] = set()
        for path, content in contents.items():
            for place, item in enumerate(content):
                task = attempt(path, f"task {place}", partial(_task, path, item))
                if isinstance(task, Note):
                    yield task
                    continue
                known.add(task.identity)
                pictured = sorted(of_task.get(task.identity, []))
                if pictured and not task.results:
                    regions = partial(_regions_of_pngs, pictured)
                    found = mask_entry(task.names, pictured[0].path, regions)
                else:
                    size = _size(task.results[0]) if task.results else None
                    found = Entry(task.names, path, size, partial(_regions, task))
                # A task may show two images, and the export does not say which one is labelled.
                yield replace(found, agreeing=True) if isinstance(found, Entry) else found
        for identity in sorted(of_task.keys() - known, key=int):
            path = min(png.path for png in of_task[identity])
            yield (
                f"{path}: the export does not say which image task {identity} shows; also export "
                "the project as JSON into the same folder"
            )

    return Export(TITLE, entries, files=frozenset(pngs))


def _task(path: Path, item: dict[str, Any]) -> _Task:
    identity = str(item.get("id"))
    notes: list[Note] = []
    if "data" not in item:
        texts = [value for value in item.values() if isinstance(value, str)]
        return _Task(identity, tuple(_names(texts)), path, _results_of_min(item), ())
    data = item["data"].values() if isinstance(item["data"], dict) else [item["data"]]
    given = (item.get("file_upload"), *data)
    names = tuple(_names([text for text in given if isinstance(text, str)]))
    annotations = item.get("annotations", item.get("completions", []))
    used = [each for each in annotations if not _is_skipped(each)]
    if len(used) < len(annotations):
        notes.append(plural(len(annotations) - len(used), "skipped annotation"))
    if len(used) > 1:
        notes.append(f"{len(used)} annotations; the later one wins where they overlap")
    results = [result for each in used for result in each["result"]]
    return _Task(identity, names, path, results, tuple(notes))


def _is_skipped(annotation: dict[str, Any]) -> bool:
    return bool(annotation.get("was_cancelled") or annotation.get("skipped"))


def _results_of_min(item: dict[str, Any]) -> list[dict[str, Any]]:
    """JSON-MIN has the results in lists by the name of the tag, their values unpacked."""
    return [
        {**result, "value": result}
        for value in item.values()
        if isinstance(value, list)
        for result in value
        if isinstance(result, dict) and "original_width" in result
    ]


def _names(texts: Sequence[str]) -> Iterator[str]:
    """Paths in the addresses of an image: of an upload, of local storage, of a bucket.

    Other text, such as a title, may be the name of another image; it counts if there is no address.
    """
    most = max(map(_likeness, texts), default=0)
    for text in texts:
        if _likeness(text) < most:
            continue
        address = urlsplit(text)
        local = parse_qs(address.query).get("d")
        path = local[0] if local else unquote(address.path if address.scheme else text)
        yield path


def _likeness(text: str) -> int:
    """How much a text looks like the address of an image, from 0 to 2."""
    ending = PurePosixPath(text).suffix.lower()
    if "://" in text or text.startswith("/") or ending in PRODUCT_ENDINGS:
        return 2
    return int("/" in text or "\\" in text)


def _size(result: dict[str, Any]) -> Size | None:
    try:
        return shapes.size_of(result["original_width"], result["original_height"])
    except (KeyError, TypeError, ValueError):
        return None  # each region without a size is told


def _regions(task: _Task, size: Size) -> Iterator[Region | Note]:
    yield from task.notes
    named = [result.get("to_name") for result in task.results if _kind(result)]
    targets = {name for name in named if isinstance(name, str)}
    if len(targets) > 1:
        yield (
            f"{task.source}: the regions of task {task.identity} are of several images "
            f"({', '.join(sorted(targets))}) and left out; label each image in a task of its own"
        )
        return
    labels_of = {
        str(result["id"]): _labels(result)
        for result in task.results
        if isinstance(result, dict) and "id" in result and _labels(result)
    }
    left_out: Counter[str] = Counter()
    for place, result in enumerate(task.results):
        kind = _kind(result)
        if kind is None:
            given = result.get("type") if isinstance(result, dict) else None
            left_out[str(given)] += given != _LABELS  # which names the region of another result
            continue
        labels = _labels(result) or labels_of.get(str(result.get("id"))) or []
        what = f"region {place} of task {task.identity} ({', '.join(map(str, labels))})"
        if not labels:
            yield f"{task.source}: {what.removesuffix(' ()')} has no label"
        for label in labels:
            yield attempt(task.source, what, partial(_region, str(label), kind, result, size))
    for kind, amount in left_out.items():
        if amount:
            yield f"{plural(amount, 'result')} of the type {kind}, which has no area"


def _kind(result: Any) -> str | None:
    """Which of ``_SHAPES`` a result is."""
    if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
        return None
    given = result.get("type")
    if not isinstance(given, str):  # JSON-MIN has none
        given = next((key for key in result["value"] if key.endswith(_LABELS)), "")
    return next((shape for shape in _SHAPES if given.lower() in (shape, shape + _LABELS)), None)


def _labels(result: dict[str, Any]) -> list[str]:
    value = result.get("value")
    if not isinstance(value, dict):
        return []
    keys = [f"{shape}{_LABELS}" for shape in _SHAPES] + [_LABELS]
    return next((value[key] for key in keys if isinstance(value.get(key), list)), [])


def _region(label: str, kind: str, result: dict[str, Any], size: Size) -> Region:
    value = result["value"]
    own = shapes.size_of(result["original_width"], result["original_height"])
    if own != size:
        raise ValueError(
            f"it was drawn on {own[0]}×{own[1]} pixels, but the image has {size[0]}×{size[1]}"
        )
    if result.get("image_rotation"):
        raise ValueError(f"it was drawn on a view turned by {result['image_rotation']} degrees")
    width, height = size
    if kind == "brush":
        return Region(label, decode_brush(value["rle"], width=width, height=height))
    if kind == "bitmask":
        mask = pictures.from_base64(str(value["imageDataURL"]).partition("base64,")[2])
        if mask.shape != (height, width):
            raise ValueError(
                f"the bitmask has {mask.shape[1]}×{mask.shape[0]} pixels, not {width}×{height}"
            )
        return Region(label, mask)
    if kind == "polygon":
        points = [(x * width / 100, y * height / 100) for x, y in value["points"]]
        return shapes.filled(label, [shapes.outline(points)], size)
    x, y = shapes.number(value["x"]) * width / 100, shapes.number(value["y"]) * height / 100
    sides = ("width", "height") if kind == "rectangle" else ("radiusX", "radiusY")
    horizontal = shapes.number(value[sides[0]]) * width / 100
    vertical = shapes.number(value[sides[1]]) * height / 100
    make = shapes.rectangle if kind == "rectangle" else shapes.ellipse
    shape = make(x, y, horizontal, vertical, degrees=shapes.number(value.get("rotation", 0)))
    return shapes.filled(label, [shapes.outline(shape)], size)


def _regions_of_pngs(pngs: Sequence[_Png], size: Size) -> Iterator[Region | Note]:
    for png in pngs:
        yield attempt(png.path, "brush mask", partial(_region_of_png, png.path, png.label, size))


def _region_of_png(path: Path, label: str, size: Size) -> Region:
    ids = decode_mask(path).ids
    if ids.ndim != 2 or ids.shape[::-1] != size:
        raise ValueError(f"the mask must be a grey picture of {size[0]}×{size[1]} pixels")
    return Region(label, ids != 0)
