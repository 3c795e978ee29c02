"""What the JSON file next to the weights of a model says; nothing here needs torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.classes import Taxonomy
from s5mars.errors import MissingFileError, UserError, as_typed
from s5mars.files import write_json
from s5mars.files.reading import read_object, reading, require_format
from s5mars.files.run_folder import CONFIG, FOLDS, TENSORS, is_finished, run_to_resume
from s5mars.models.box import contains, installed, installed_folder
from s5mars.models.domain import Domain

FORMAT = 1
NETWORKS = ("teacher", "student")


def checkpoint_path(path: Path) -> Path:
    """The safetensors file of a run folder or an installed model, or the path if it is a file.

    A run folder with the name of an installed model takes precedence.

    Raises:
        MissingFileError: if it does not exist.
        UserError: if it is an ONNX file, or the folder of a cross-validation.
    """
    if path.suffix.lower() == ".onnx":
        raise UserError(f"{path} is an ONNX file; give the run that it was exported from")
    if path.is_file():
        return path
    candidate = path / TENSORS
    if candidate.is_file():
        return candidate
    if folder := installed_folder(path):
        return folder / TENSORS
    if (path / FOLDS).is_file():
        raise UserError(
            f"{path} has one model for each fold; give one of them, such as {path / 'fold-1'}"
        )
    if path.is_dir():
        if (path / CONFIG).is_file() and not is_finished(path):
            raise MissingFileError(
                f"{path} contains no {TENSORS}, because its training was stopped; resume it with "
                f"`s5mars train --resume {as_typed(run_to_resume(path))}`"
            )
        raise MissingFileError(
            f"{path} contains no {TENSORS}; give the folder of a finished `s5mars train` run"
        )
    names = installed()
    known = f", or the name of an installed model ({', '.join(names)})" if names else ""
    raise MissingFileError(f"{path} does not exist; give a run folder or a checkpoint{known}")


def is_installed(path: Path) -> bool:
    """Whether a path means an installed model, next to which nothing may be written."""
    try:
        return contains(checkpoint_path(path))
    except UserError:
        return False


def read_facts(tensors_path: Path) -> dict[str, Any]:
    """Read the JSON file next to a checkpoint.

    Raises:
        MissingFileError: if it is missing.
        UserError: if it is damaged or has another format.
    """
    path = tensors_path.with_suffix(".json")
    if not path.is_file():
        raise MissingFileError(f"{path} is missing; a checkpoint consists of two files, copy both")
    facts = read_object(path, kind="description of a checkpoint", remedy="copy it again")
    check_facts(facts, path)
    return facts


def check_facts(facts: Mapping[str, Any], path: Path) -> None:
    """Check that facts describe a model, so that later code can rely on it.

    Raises:
        UserError: if they do not.
    """
    require_format(path, facts.get("format"), FORMAT)
    with reading(path, kind="description of a checkpoint", remedy="copy it again"):
        for key in ("taxonomy", "model", "training"):
            if not isinstance(facts[key], dict):
                raise TypeError(f"{key} is not a table")
        for network in NETWORKS:
            temperature_of(facts, network)
            class_biases_of(facts, network)


def temperature_of(facts: Mapping[str, Any], network: str) -> float:
    """The temperature in the facts for one of the networks, or 1 if there is none.

    Raises:
        ValueError: if it is invalid.
    """
    try:
        entry = (facts.get("calibration") or {}).get(network)
        temperature = 1.0 if entry is None else float(entry["temperature"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its calibration is not a table with a temperature ({error})") from error
    if not 0 < temperature < float("inf"):
        raise ValueError(f"its temperature is {temperature}")
    return temperature


def recorded_class_biases(facts: Mapping[str, Any], network: str) -> dict[str, Any] | None:
    """The entry of ``write_class_biases`` for one of the networks, if there is one."""
    entry: dict[str, Any] | None = (facts.get("class_biases") or {}).get(network)
    return entry


def class_biases_of(facts: Mapping[str, Any], network: str) -> tuple[float, ...] | None:
    """The class biases in the facts for one of the networks; None if there are none, or all are 0.

    Raises:
        ValueError: if they are invalid.
    """
    try:
        entry = recorded_class_biases(facts, network)
        biases = () if entry is None else tuple(float(bias) for bias in entry["values"])
        classes = int(facts["model"]["classes"]) if biases else 0
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its class_biases are not a table with values ({error})") from error
    if biases and len(biases) != classes:
        raise ValueError(f"it has {len(biases)} class biases for {classes} classes")
    if not all(map(math.isfinite, biases)):
        raise ValueError(f"its class biases are {biases}")
    return biases if any(biases) else None


def write_class_biases(run: Path, network: str, entry: Mapping[str, Any] | None) -> None:
    """Add class biases to the JSON file of a checkpoint, or remove them (None).

    A temperature of this network was fitted to other logits if the biases change, and is removed.

    Args:
        run: a run folder or a checkpoint.
        network: ``"teacher"`` or ``"student"``.
        entry: the ``values``, in the order of the classes, and what they were fitted on.
    """
    tensors_path = checkpoint_path(run)
    old = read_facts(tensors_path)
    known = {k: v for k, v in (old.get("class_biases") or {}).items() if k != network}
    if entry is not None:
        known[network] = dict(entry)
    new = {**old, "class_biases": known}
    temperatures = old.get("calibration") or {}
    if network in temperatures and class_biases_of(old, network) != class_biases_of(new, network):
        new["calibration"] = {k: v for k, v in temperatures.items() if k != network}
    write_json(tensors_path.with_suffix(".json"), new)


def write_calibration(run: Path, network: str, entry: Mapping[str, Any]) -> None:
    """Add a temperature to the JSON file of a checkpoint; it is lost when weights are saved again.

    ``entry`` has the ``temperature`` for this network, and what it was fitted on.
    """
    tensors_path = checkpoint_path(run)
    facts = read_facts(tensors_path)
    known = {**(facts.get("calibration") or {}), network: dict(entry)}
    write_json(tensors_path.with_suffix(".json"), {**facts, "calibration": known})


def read_domain(
    facts: Mapping[str, Any],
    path: Path,
    *,
    network: str,
    arrays: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
) -> Domain | None:
    """The record of the training images, if any; features of another network are left out.

    Args:
        facts: content of the JSON file.
        path: the file of the weights, for messages.
        network: ``"teacher"`` or ``"student"``.
        arrays: what ``Domain.arrays`` gave; without them, images are not compared by features.

    Raises:
        UserError: if it is damaged.
    """
    if facts.get("domain") is None:
        return None
    with reading(path, kind="description of training images", remedy="copy both files again"):
        same = facts["domain"]["network"] == network
        return Domain.from_dict(facts["domain"], arrays if same else {})


def without_folders(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts for sharing: local paths are reduced to their last component."""
    paths = ("data", "splits", "labelled", "pool", "teacher", "run")
    return {
        key: Path(value).name if key in paths and isinstance(value, str) else value
        for key, value in facts.items()
    }


def read_taxonomy(facts: Mapping[str, Any], path: Path) -> Taxonomy:
    """The classes of a checkpoint.

    Raises:
        UserError: if they are damaged, or their number is not that of the network.
    """
    with reading(path, kind="description of a model", remedy="copy it again"):
        try:
            taxonomy = Taxonomy.from_dict(facts["taxonomy"])
        except UserError as error:
            raise ValueError(str(error)) from error  # `reading` adds the file name
        classes = facts["model"]["classes"]
        if len(taxonomy) != classes:
            raise ValueError(f"its taxonomy has {len(taxonomy)} classes, its network {classes}")
        return taxonomy
