"""Reads and writes object masks as one JSON file per image, as SAM's mask generator does.

A file is a list of ``{"segmentation": RLE, "predicted_iou": 0.98, "area": 1234, "bbox": [x, y, w,
h], "stability_score": 0.97}`` or, as in SA-1B, an object with such a list in ``annotations``. An
RLE is that of COCO: ``{"size": [H, W], "counts": compressed string or list of run lengths}``. The
authors of S5Mars distribute their masks in this format. Only ``segmentation`` and ``predicted_iou``
are required; area and box are measured from the mask.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from s5mars.errors import MissingFileError, UserError
from s5mars.files import below, printable, write_text
from s5mars.files.reading import read_json as json_of
from s5mars.files.reading import reading
from s5mars.products.errors import MAX_PIXELS
from s5mars.products.files import files_below
from s5mars.proposals.proposal import Proposal, proposal_from_rle, run_lengths
from s5mars.proposals.store import ObjectStore, write_store

_UNNAMED = "sam"
"""Proposer of masks whose file does not name it."""


def import_json(folder: Path | str, path: Path | str) -> ObjectStore:
    """Import all ``*.json`` files below ``folder`` into one Parquet file at ``path``.

    The name of an image is the relative path of its file without the ending. The order of a list
    becomes the rank.

    Raises:
        MissingFileError: if the folder does not exist or contains no JSON file.
        UserError: if a file does not have this format; the message names the file and the mask.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder")
    files = files_below(folder, {".json"})
    if not files:
        raise MissingFileError(f"{folder} contains no *.json file")

    def rows() -> Iterator[tuple[str, list[Proposal]]]:
        for file in files:
            name = printable(file.relative_to(folder).with_suffix("").as_posix())
            yield name, read_json(file)

    made_by = next((masks[0].proposer for _, masks in rows() if masks), _UNNAMED)
    write_store(path, rows(), proposer=made_by, settings={"imported": "json"})
    return ObjectStore(path)


def read_json(file: Path | str) -> list[Proposal]:
    """Read the proposals of one image from a JSON file; raises as ``import_json``."""
    file = Path(file)
    content = json_of(file, remedy="make it again, or leave it out")
    if isinstance(content, dict):
        content = content.get("annotations")
    if not isinstance(content, list):
        raise UserError(
            f"{file} must contain a list of masks, or an object with such a list in 'annotations'"
        )
    proposals = []
    for k, entry in enumerate(content):
        remedy = "each needs 'segmentation' (COCO RLE) and 'predicted_iou'"
        with reading(file, kind=f"mask {k}", remedy=remedy):
            proposals.append(_proposal(entry))
    sizes = {proposal.size for proposal in proposals}
    if len(sizes) > 1:
        raise UserError(f"{file}: all masks must have the same size (got {sorted(sizes)})")
    return proposals


def export_json(store: ObjectStore, folder: Path | str) -> int:
    """Write one JSON file per image below ``folder``; return the number of files.

    ``import_json`` reads the same masks in the same order.
    """
    folder = Path(folder)
    for name in store.names:
        entries = [
            {
                "segmentation": {
                    "size": list(proposal.size),
                    "counts": proposal.counts.decode("ascii"),
                },
                "area": proposal.area,
                "bbox": list(proposal.box),
                "predicted_iou": proposal.predicted_iou,
                "stability_score": proposal.stability,
                "proposer": proposal.proposer,
            }
            for proposal in store.proposals(name)
        ]
        write_text(below(folder, f"{name}.json", source=store.path), json.dumps(entries))
    return len(store)


def checked_rle(segmentation: Any) -> dict[str, Any]:
    """A COCO RLE for pycocotools, which trusts its input: compressed, of the size that it states.

    Args:
        segmentation: ``{"size": [H, W], "counts": compressed string or list of run lengths}``.

    Raises:
        ValueError, KeyError, TypeError: if it is not such a mapping, or describes no mask.
    """
    if not isinstance(segmentation, dict):
        raise ValueError("'segmentation' must be a run-length encoding; polygons are not supported")
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    runs = counts if isinstance(counts, list) else run_lengths(counts.encode("ascii")).tolist()
    # pycocotools would read or write beyond the mask.
    if not all(type(number) is int and number >= 0 for number in (height, width, *runs)):
        raise ValueError("sizes and run lengths must be integers of at least 0")
    if height * width > MAX_PIXELS:
        raise ValueError(f"{height}×{width} pixels are more than the limit of {MAX_PIXELS:,}")
    if sum(runs) != height * width:
        raise ValueError(f"the runs have {sum(runs)} pixels, but the mask has {height}×{width}")
    if isinstance(counts, list):
        rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        return dict(rle)
    return {"size": [height, width], "counts": counts.encode("ascii")}


def _proposal(entry: Any) -> Proposal:
    rle = checked_rle(entry["segmentation"])
    predicted_iou = float(entry["predicted_iou"])
    stability = float(entry.get("stability_score", predicted_iou))
    if not (isfinite(predicted_iou) and isfinite(stability)):
        raise ValueError("'predicted_iou' and 'stability_score' must be finite numbers")
    return proposal_from_rle(
        rle,
        predicted_iou=predicted_iou,
        stability=stability,
        proposer=str(entry.get("proposer", _UNNAMED)),
    )
