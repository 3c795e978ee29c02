"""COCO JSON: instances as polygons or run lengths, from any tool; run lengths to it.

Regions of crowds are painted as all others, because here a region stands for its class. Boxes
without a segmentation are left out. Categories may have a ``color``, ``[r, g, b]`` as in panoptic
COCO or ``"#rrggbb"``.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from s5mars.classes import Colour, Taxonomy
from s5mars.files import write_text
from s5mars.files.reading import reading
from s5mars.labels import shapes
from s5mars.labels.colours import shown_colour
from s5mars.labels.regions import REMEDY, Entry, Export, Note, Region, Size, Writer, attempt
from s5mars.proposals.coco import checked_rle
from s5mars.proposals.proposal import run_lengths
from s5mars.text.numbers import plural

TITLE = "COCO JSON"
FILE = "instances_default.json"
"""As CVAT names it."""


def is_coco(content: object) -> bool:
    """Whether parsed JSON is of this format."""
    return isinstance(content, dict) and all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    )


def read(contents: Mapping[Path, Any], problems: Sequence[Note]) -> Export:
    """The labels of COCO files.

    Raises:
        DamagedFileError: if the categories of a file are not of the format.
    """
    labels: dict[str, Colour | None] = {}
    names: dict[Path, dict[object, str]] = {}
    for path, content in contents.items():
        with reading(path, kind="list of categories", remedy=REMEDY):
            names[path] = {each["id"]: str(each["name"]) for each in content["categories"]}
            for each in content["categories"]:
                labels.setdefault(str(each["name"]), shown_colour(each.get("color")))

    def entries() -> Iterator[Entry | Note]:
        yield from problems
        for path, content in contents.items():
            yield from _entries(path, content, names[path])

    return Export(TITLE, entries, labels)


def _entries(path: Path, content: Any, names: Mapping[object, str]) -> Iterator[Entry | Note]:
    of_image: dict[object, list[Any]] = defaultdict(list)
    unusable = 0
    for annotation in content["annotations"]:
        image = annotation.get("image_id") if isinstance(annotation, dict) else None
        if isinstance(image, int | str):
            of_image[image].append(annotation)
        else:
            unusable += 1
    if unusable:
        yield f"{path}: {plural(unusable, 'annotation')} without an image_id: {REMEDY}"

    def entry(image: Any) -> Entry:
        name = str(image["file_name"])
        annotations = of_image.pop(image["id"], [])
        known = image.get("width") and image.get("height")  # some tools write 0 for unknown
        size = shapes.size_of(image["width"], image["height"]) if known else None
        return Entry((name,), path, size, partial(_regions, path, annotations, names))

    for place, image in enumerate(content["images"]):
        yield attempt(path, f"image {place}", partial(entry, image))
    left = sum(map(len, of_image.values()))
    if left:
        first = next(iter(of_image))
        yield (
            f"{path}: {plural(left, 'annotation')} of {plural(len(of_image), 'image')} that the "
            f"file does not list, such as image_id {first!r}: {REMEDY}"
        )


def _regions(
    path: Path, annotations: list[Any], names: Mapping[object, str], size: Size
) -> Iterator[Region | Note]:
    unknown: Counter[object] = Counter()
    boxes: Counter[str] = Counter()
    short: Counter[str] = Counter()
    for annotation in annotations:
        category = annotation.get("category_id")
        label = names.get(category) if isinstance(category, int | str) else None
        segmentation = annotation.get("segmentation")
        if label is None:
            unknown[str(category)] += 1
        elif not segmentation:
            boxes[label] += 1
        else:
            kind = f"annotation {annotation.get('id')!r} ({label})"
            usable, left_out = _usable_parts(segmentation)
            short[label] += left_out
            yield attempt(path, kind, partial(_region, label, usable, size))
    for number, amount in unknown.items():
        yield f"{plural(amount, 'annotation')} of the unknown category {number}"
    for label, amount in boxes.items():
        yield f"{plural(amount, 'annotation')} of {label!r} without a segmentation"
    for label, amount in short.items():
        if amount:
            yield (
                f"{path}: {plural(amount, 'polygon part')} of {label!r} with fewer than three "
                "points; the other parts are used"
            )


def _usable_parts(segmentation: Any) -> tuple[Any, int]:
    """The parts of a polygon that have an area, and the number of the others.

    An annotation without such a part is left as it is, so that it is reported as damaged.
    """
    if not isinstance(segmentation, list):
        return segmentation, 0
    usable = [part for part in segmentation if not isinstance(part, list) or len(part) >= 6]
    return (usable, len(segmentation) - len(usable)) if usable else (segmentation, 0)


def _region(label: str, segmentation: Any, size: Size) -> Region:
    if isinstance(segmentation, dict):
        rle = checked_rle(segmentation)
        height, width = rle["size"]
        if (width, height) != size:
            raise ValueError(
                f"the run lengths are for {width}×{height} pixels, but the image has "
                f"{size[0]}×{size[1]}"
            )
        return Region(label, coco_mask.decode(rle).astype(bool))
    outlines = []
    for flat in segmentation:
        if not isinstance(flat, list) or len(flat) % 2:
            raise ValueError("a polygon must be a list of x, y, x, y, ...")
        outlines.append(shapes.outline([flat[k : k + 2] for k in range(0, len(flat), 2)]))
    return shapes.filled(label, outlines, size)


@contextmanager
def writing(out: Path, taxonomy: Taxonomy) -> Iterator[Writer]:
    """A writer of ``instances_default.json``: exactly one region per class and image."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []

    def add(file_name: str, labels: NDArray[np.uint8]) -> None:
        height, width = labels.shape
        images.append(
            {"id": len(images) + 1, "file_name": file_name, "width": width, "height": height}
        )
        for index in np.unique(labels[labels < len(taxonomy)]).tolist():
            mask = labels == index
            rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
            runs = run_lengths(rle["counts"]).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": index + 1,
                    "segmentation": {"size": [height, width], "counts": runs},
                    "area": int(mask.sum()),
                    "bbox": [float(side) for side in coco_mask.toBbox(rle)],
                    "iscrowd": 1,  # what COCO says of regions in run lengths
                }
            )

    yield Writer(out / "images", out / FILE, add)
    categories = [
        {"id": index + 1, "name": each.name, "supercategory": "", "color": each.colour}
        for index, each in enumerate(taxonomy.classes)
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_text(out / FILE, json.dumps(content, ensure_ascii=False))
