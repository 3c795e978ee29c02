"""Compute the output files and index entries of one product, for every engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from s5mars.classes import IGNORE, Taxonomy
from s5mars.errors import UserError
from s5mars.files import encoded_picture, printable
from s5mars.models.domain import Verdict
from s5mars.predict.overlay import indexed_png
from s5mars.predict.predictor import Predictor
from s5mars.predict.reading import Failed, Read, failed
from s5mars.predict.regions import class_counts, largest_regions
from s5mars.predict.segmentation import Segmentation
from s5mars.predict.sources import ENDINGS, Source

DEFAULT_WRITE = ("labels", "confidence", "overlay")

LARGEST_JPEG = 65_500
"""Pixels of a side that libjpeg writes."""


@dataclass(frozen=True)
class MapSettings:
    """What to write for each product."""

    taxonomy: Taxonomy
    write: tuple[str, ...] = DEFAULT_WRITE  # keys of ``ENDINGS``

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.write if kind not in ENDINGS]
        if unknown or not self.write:
            raise UserError(
                f"--write must name some of {', '.join(sorted(ENDINGS))} "
                f"(got {', '.join(unknown) or 'nothing'})"
            )


@dataclass(frozen=True)
class Maps:
    """Finished files of a product and its entry in the index."""

    source: Source
    files: Mapping[str, bytes]  # path below the output folder → content
    facts: Mapping[str, object]  # JSON holds it


def segment(predictor: Predictor, read: Read | Failed) -> tuple[Read, Segmentation] | Failed:
    """Predict a product; black borders and missing pixels get 255 and confidence 0."""
    if isinstance(read, Failed):
        return read
    try:
        return read, predictor.segment(read)
    except Exception as error:
        return failed(read.source, error)


def make_maps(
    segmented: tuple[Read, Segmentation] | Failed, settings: MapSettings
) -> Maps | Failed:
    """Encode the requested files."""
    if isinstance(segmented, Failed):
        return segmented
    read, segmentation = segmented
    try:
        # Facts first: they need large arrays, and encoding fragments memory.
        facts = _facts(read, segmentation, settings.taxonomy)
        files = {
            name: _encoded(kind, read, segmentation, settings)
            for kind, name in read.source.outputs(settings.write).items()
        }
        return Maps(read.source, files, facts)
    except Exception as error:
        return failed(read.source, error)


def _encoded(kind: str, read: Read, segmentation: Segmentation, settings: MapSettings) -> bytes:
    labels = segmentation.labels
    if kind == "rle":
        return _rle(read.source, labels, settings.taxonomy)
    if kind == "labels":
        return encoded_picture(indexed_png(labels, settings.taxonomy), ".png")
    if kind == "confidence":
        return encoded_picture(Image.fromarray(segmentation.confidence), ".png", compress_level=3)
    overlay = segmentation.overlay()
    if max(overlay.size) > LARGEST_JPEG:
        raise UserError(
            f"the overlay would have {overlay.width:,}×{overlay.height:,} pixels, but a JPEG has "
            f"at most {LARGEST_JPEG:,} on a side; leave overlay out of --write, or cut the image"
        )
    return encoded_picture(overlay, ".jpg", quality=90)


def _rle(source: Source, labels: NDArray[np.uint8], taxonomy: Taxonomy) -> bytes:
    """COCO format: one annotation per class present, with compressed run lengths."""
    height, width = labels.shape
    annotations = []
    for index, entry in enumerate(taxonomy.classes):
        mask = labels == index
        if not mask.any():
            continue
        encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        annotations.append(
            {
                "category_id": index,
                "category": entry.name,
                "segmentation": {
                    "size": [height, width],
                    "counts": encoded["counts"].decode("ascii"),
                },
                "area": int(coco_mask.area(encoded)),
                "bbox": [float(side) for side in coco_mask.toBbox(encoded)],
            }
        )
    content = {
        "image": {"file_name": printable(source.path.name), "height": height, "width": width},
        "categories": [{"id": i, "name": name} for i, name in enumerate(taxonomy.names)],
        "annotations": annotations,
    }
    return (json.dumps(content, ensure_ascii=False) + "\n").encode()


def _facts(read: Read, segmentation: Segmentation, taxonomy: Taxonomy) -> dict[str, object]:
    labels, confidence = segmentation.labels, segmentation.confidence
    counts = class_counts(labels)
    empty = int(np.count_nonzero(read.empty))
    pixels = labels.size - empty
    # Pixels without data have confidence 0, so they add nothing.
    total = int(confidence.sum(dtype=np.int64))
    return {
        "height": labels.shape[0],
        "width": labels.shape[1],
        "no_data": empty / labels.size,
        "abstained": (int(counts[IGNORE]) - empty) / pixels if pixels else None,
        "mean_confidence": total / 255 / pixels if pixels else None,
        "shares": [int(counts[i]) / pixels if pixels else None for i in range(len(taxonomy))],
        "largest": largest_regions(labels, len(taxonomy)),
        **_domain_facts(segmentation.verdict),
        **read.info,
    }


def _domain_facts(verdict: Verdict | None) -> dict[str, object]:
    if verdict is None:
        return {}
    return {
        "out_of_domain": verdict.outside,
        "out_of_domain_reason": ", ".join(verdict.reasons) or None,
        "domain_distance": verdict.distance,
    }
