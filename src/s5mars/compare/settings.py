"""Describe the settings that results of one table must share, and find differences."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from s5mars import __version__
from s5mars.compare.grid import Cell, Row
from s5mars.data.dataset import Dataset
from s5mars.data.partition import partition_list
from s5mars.files.reading import read_text
from s5mars.settings.config import TrainConfig
from s5mars.settings.parsing import Training

_OF_THE_CELL = {"data", "out", "method", "labelled", "seed"}
_CHANGE_NOTHING = {"config", "workers", "save_every", "snapshots", "features"}
"""Options that do not change the result of a run."""

_DIGITS = 16


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """Describe a data set without its path, so that copies of it are equal."""
    return {
        "folder": dataset.root.resolve().name,
        "layout": dataset.layout,
        "taxonomy": dataset.taxonomy.name,
        "classes": list(dataset.taxonomy.names),
        "ignored": sorted(dataset.coding.ignored),
        "splits": {
            name: {"images": len(samples), "names": digest(s.name for s in samples)}
            for name, samples in sorted(dataset.splits.items())
            if samples
        },
        "unlabelled": {
            "images": len(dataset.unlabelled),
            "names": digest(s.name for s in dataset.unlabelled),
        },
    }


def describe_comparison(
    dataset: Dataset, base: Training, *, split: str, protocol: str
) -> dict[str, Any]:
    """Describe the settings that all cells share.

    Args:
        dataset: the data set.
        base: settings of the baseline; ``describe_row`` gives the changes of a row.
        split: split that is scored.
        protocol: protocol of the evaluation.
    """
    return {
        "s5mars": __version__,
        "data": describe_data(dataset),
        "evaluation": {"split": split, "protocol": protocol},
        "training": _common(base),
    }


def describe_row(training: Training, base: Training) -> dict[str, Any]:
    """Return the fields of the row's method, and the training settings that it changes."""
    here, there = _common(training), _common(base)
    del here["ablation"]  # its effect is in the fields
    fields = yaml.safe_load(training.text).get(training.config.method) or {}
    return {
        "training": {key: value for key, value in here.items() if value != there.get(key)},
        training.config.method: fields,
    }


def describe_share(cell: Cell, dataset: Dataset) -> dict[str, Any]:
    """Describe a share, or a list with its content.

    Raises:
        MissingFileError: if the list is missing.
    """
    if not cell.share.startswith("list-"):
        return {"labelled": float(cell.labelled)}
    path = partition_list(dataset, cell.labelled)
    return {
        "labelled": Path(cell.labelled).name,
        "names": digest(read_text(path, kind="list").split()),
    }


def facts_of(row: Row, training: Training, base: Training) -> dict[str, Any]:
    """Return the entry of a row in ``comparison.json``."""
    return {
        "title": row.title,
        "group": row.group,
        "method": training.config.method,
        "settings": describe_row(training, base),
    }


def differences(old: object, new: object, *, prefix: str = "") -> list[str]:
    """``["training.steps: 4 there, 8 now"]``, for nested mappings."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for key in dict.fromkeys([*old, *new])
            for line in differences(
                old.get(key), new.get(key), prefix=f"{prefix}.{key}" if prefix else str(key)
            )
        ]
    return [] if old == new else [f"{prefix}: {old} there, {new} now"]


def fingerprint(*parts: object) -> str:
    """Return a short hash of settings."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def digest(names: Iterable[str]) -> str:
    """Return a short hash of names, independent of their order."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:_DIGITS]


def same_run(config: TrainConfig, recorded: TrainConfig) -> list[str]:
    """List the differences between the settings of an existing run and those of its cell."""
    return [
        f"{name}: {getattr(recorded, name)} there, {getattr(config, name)} now"
        for name in TrainConfig.__dataclass_fields__
        if name not in {"data", "out"} | _CHANGE_NOTHING
        and getattr(recorded, name) != getattr(config, name)
    ]


def _common(training: Training) -> dict[str, Any]:
    settings = yaml.safe_load(training.text)
    return {
        name: settings.get(name)
        for name in TrainConfig.__dataclass_fields__
        if name not in _OF_THE_CELL | _CHANGE_NOTHING
    }
