"""Creates, imports and exports object stores for ``s5mars masks``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from s5mars.data.layouts import open_dataset
from s5mars.errors import UserError, needed
from s5mars.parallel.cluster import Engine
from s5mars.proposals.build import PROPOSERS, SHARD_IMAGES, Hardware, build_store
from s5mars.proposals.coco import export_json, import_json
from s5mars.proposals.draw import ObjectFilter, coverage
from s5mars.proposals.store import ObjectStore
from s5mars.types import Sample

EVERYTHING = "all"


def make_masks(
    data: Path,
    out: Path,
    *,
    proposer: str = "graph",
    sam: Mapping[str, Any] | None = None,
    hardware: Mapping[str, Any] | None = None,
    split: str = "train",
    splits: Path | None = None,
    workers: int = 1,
    shard_images: int = SHARD_IMAGES,
    engine: Engine = "local",
    address: str | None = None,
) -> ObjectStore:
    """Find the objects in the images of one split; an interrupted call can be repeated to resume.

    Args:
        proposer: ``graph`` or ``sam``.
        sam: Fields of ``SamSettings``; empty for ``graph``. ``precision`` defaults to bf16 on GPUs
            that support it.
        hardware: Fields of ``Hardware``; empty for ``graph``.
        split: Split of the images; ``all`` for all images, also those without a label or a split.
        splits: Folder of the split lists; see ``open_dataset``.
        engine: ``local`` or ``ray``.

    Raises:
        UserError, MissingFileError: if files cannot be read, or options belong to another
            proposer.
    """
    sam, hardware = dict(sam or {}), dict(hardware or {})
    settings = None
    if proposer == "sam":
        settings = _sam_settings(sam, str(hardware.get("device", "auto")))
    elif sam or hardware:
        option = next(iter([*sam, *hardware])).replace("_", "-")
        raise UserError(f"--{option} needs --proposer sam (got {proposer})")
    samples = samples_of(data, split, splits)
    store = build_store(
        samples,
        out,
        proposer=proposer,
        settings=settings,
        workers=workers,
        shard_images=shard_images,
        hardware=Hardware(**hardware),
        engine=engine,
        address=address,
    )
    _report(store, samples)
    return store


def import_masks(
    folder: Path,
    out: Path,
    *,
    data: Path | None = None,
    split: str = "train",
    splits: Path | None = None,
) -> ObjectStore:
    """Import JSON files, one per image, into one Parquet file, and compare it with ``data``.

    Raises:
        UserError, MissingFileError: as ``import_json``, and if the store has none of the images of
            ``data``, or its masks have another size.
    """
    if out.exists():
        raise UserError(f"{out} exists: choose another --out, or remove it")
    samples = None if data is None else samples_of(data, split, splits)
    store = import_json(folder, out)
    try:
        _report(store, samples)
    except ValueError:
        out.unlink()  # it belongs to other images
        raise
    return store


def export_masks(store: Path, folder: Path) -> int:
    """Export a store to one JSON file of COCO run lengths per image; return their number."""
    written = export_json(ObjectStore(store), folder)
    print(f"{folder}: {written} JSON files")
    return written


def _sam_settings(fields: dict[str, Any], device: str) -> Any:
    if "weights" not in fields:
        return PROPOSERS["sam"].defaults()
    needed("transformers", extra="sam")
    from s5mars.proposals.sam import SamSettings, fast_precision

    settings = SamSettings(**fields)
    if "precision" in fields:
        return settings
    return replace(settings, precision=fast_precision(device))


def samples_of(data: Path, split: str, splits: Path | None) -> Sequence[Sample]:
    """The images of a split of a data set; with ``all``, those that no list names, too."""
    dataset = open_dataset(data, splits=splits)
    if split != EVERYTHING:
        return dataset.split(split)
    parts = (*dataset.splits.values(), dataset.unlabelled, dataset.unlisted)
    return list({sample.name: sample for part in parts for sample in part}.values())


def _report(store: ObjectStore, samples: Sequence[Sample] | None) -> None:
    print(store.description)
    if samples is None:
        return
    sentence = coverage(store, samples, filter=ObjectFilter()).sentence
    if sentence:
        print(sentence, file=sys.stderr)
