"""Describe the settings that results of one table must share, and find differences."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Set
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import yaml

from s5mars import __version__
from s5mars.comparison.grid import Cell, Row
from s5mars.data.dataset import Dataset
from s5mars.data.layouts.files import read_names
from s5mars.data.partition import POOLS, partition_list
from s5mars.files.reading import read_text
from s5mars.settings.config import TrainConfig
from s5mars.settings.networks import NetworkOptions, network_options
from s5mars.settings.parsing import Training
from s5mars.settings.paths import with_absolute_paths

_OF_THE_CELL = {"data", "splits", "out", "method", "labelled", "seed"}
_CHANGE_NOTHING = {
    "config", "workers", "save_every", "snapshots", "sam.features", "feature_cache",
    "object_cache", "accept_licence",
}  # fmt: skip
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
        base: settings of the baseline; ``describe_row`` gives the changes of a row.
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


def with_new_options(training: Mapping[str, Any], *, of_row: bool = False) -> dict[str, Any]:
    """Recorded training settings with the options that were added since then.

    These have their default, which leaves behaviour as it was.

    Args:
        training: of the baseline, or the changes of a row.
        of_row: whether they are the changes of a row.
    """
    found = dict(training)
    if not of_row:
        defaults = {
            field.name: field.default
            for field in fields(TrainConfig)
            if field.default is not MISSING and field.name not in _OF_THE_CELL | _CHANGE_NOTHING
        }
        found = {**defaults, **found}
    if "model" in found:
        kind = network_options(found["model"])
        options = asdict(kind()) | found.pop(kind.group, {})
        found |= _of_network(kind, options)
    settings: dict[str, Any] = json.loads(json.dumps(found))  # tuples are lists there
    return settings


def differences(
    old: object, new: object, *, prefix: str = "", words: tuple[str, str] = ("there", "now")
) -> list[str]:
    """``["training.steps: 4 there, 8 now"]``, for nested mappings."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for key in dict.fromkeys([*old, *new])
            for line in differences(
                old.get(key),
                new.get(key),
                prefix=f"{prefix}.{key}" if prefix else str(key),
                words=words,
            )
        ]
    return [] if old == new else [f"{prefix}: {old} {words[0]}, {new} {words[1]}"]


def fingerprint(*parts: object) -> str:
    """Return a short hash of settings."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def digest(names: Iterable[str]) -> str:
    """Return a short hash of names, independent of their order."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:_DIGITS]


def run_differences(config: TrainConfig, recorded: TrainConfig) -> list[str]:
    """List the differences between the settings of an existing run and those of its cell."""
    there, now = (
        _relevant(asdict(each), each, without={"data", "splits", "out"})
        for each in map(with_absolute_paths, (recorded, config))
    )
    return differences(there, now)


def _common(training: Training) -> dict[str, Any]:
    text, config = yaml.safe_load(training.text), training.config
    # Options that this network does not have keep their default.
    whole = json.loads(json.dumps(asdict(config), default=str))
    settings = {**whole, "network": text[config.network.group]} | {
        name: text[name] for name in whole if name in text
    }
    if config.pool not in POOLS:  # a list, which counts by its content as that of labels does
        names = read_names(Path(config.pool))
        settings["pool"] = f"{Path(config.pool).name}, {digest(names)}"
    return _relevant(settings, config, without=_OF_THE_CELL)


def _relevant(
    settings: Mapping[str, Any], config: TrainConfig, *, without: Set[str]
) -> dict[str, Any]:
    """Settings that can change the result of a run; those of the network are in its group."""
    names = settings.keys() - {"network"} - without - _CHANGE_NOTHING
    return {key: value for key, value in settings.items() if key in names} | _of_network(
        type(config.network), settings["network"]
    )


def _of_network(kind: type[NetworkOptions], options: Mapping[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in options.items() if f"{kind.group}.{k}" not in _CHANGE_NOTHING}
    return {kind.group: kept} if kept else {}
