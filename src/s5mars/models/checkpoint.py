"""Checkpoints for sharing: weights as safetensors, metadata as JSON. No pickle."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from s5mars.classes import Taxonomy
from s5mars.data.resolution import FULL, Resolution
from s5mars.errors import (
    DamagedFileError,
    MissingFileError,
    UserError,
    first_line,
    require_choice,
)
from s5mars.files import write_bytes, write_json
from s5mars.files.reading import read_object, reading
from s5mars.models.box import contains, installed, installed_folder
from s5mars.models.build import AnyNetwork, rebuild_network
from s5mars.models.domain import Domain
from s5mars.models.tuning import shared_state

FORMAT = 1
NETWORKS = ("teacher", "student")
_DOMAIN = "domain."


Model = TypeVar("Model", bound=Callable[[Tensor], Tensor], covariant=True)


@dataclass(frozen=True)
class LoadedModel(Generic[Model]):
    """A network for inference, its classes, and the metadata of its checkpoint."""

    model: Model
    taxonomy: Taxonomy
    facts: dict[str, Any]
    network: str  # "teacher" or "student"
    domain: Domain | None = None  # what its training images are like, if that was recorded
    class_biases: tuple[float, ...] | None = None  # to add to its logits; None if included or 0

    @property
    def resolution(self) -> Resolution:
        """Resolution to which images are resized before this network sees them."""
        return Resolution.parse(self.facts.get("resolution", str(FULL)))

    @property
    def temperature(self) -> float:
        """Temperature that ``s5mars calibrate`` fitted for this network; 1 if not calibrated."""
        return temperature_of(self.facts, self.network)


def save_model(
    path: Path,
    networks: Mapping[str, AnyNetwork],
    *,
    taxonomy: Taxonomy,
    training: dict[str, Any],
    resolution: Resolution = FULL,
) -> None:
    """Write ``path`` (safetensors) and the JSON file next to it.

    ``networks`` has ``student``, ``teacher``, or both; ``training`` is metadata for the JSON file:
    method, data, seed, step, score, protocol.
    """
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, network in networks.items()
        for key, value in shared_state(network).items()
        # This head is used in training only.
        if not key.startswith("representation.")
    }
    described = next(iter(networks.values()))
    facts = {
        "format": FORMAT,
        "networks": sorted(networks),
        "taxonomy": taxonomy.to_dict(),
        "model": described.description,
        "resolution": str(resolution),
        "normalisation": {
            "mean": described.mean.flatten().tolist(),
            "std": described.std.flatten().tolist(),
        },
        "training": training,
    }
    # Weights first: a JSON file without weights would look complete.
    # Not `save_file`, which hides a full disk in its own error type and makes the file private.
    write_bytes(path, save(tensors))
    write_json(path.with_suffix(".json"), facts)


def load_model(path: str | PathLike[str], *, network: str = "teacher") -> LoadedModel[AnyNetwork]:
    """Read a checkpoint written by ``save_model``.

    Args:
        path: a run folder, its ``best.safetensors``, or the name of an installed model.
        network: ``teacher`` (falls back to the student if the method has no teacher) or
            ``student``.

    Raises:
        MissingFileError: if there is no checkpoint.
        UserError: if it is damaged, has an unknown format, or lacks the network.
    """
    require_choice(network, NETWORKS, name="--network")
    tensors_path = checkpoint_path(Path(path))
    facts = read_facts(tensors_path)
    tensors = _read_tensors(tensors_path)
    chosen = network if any(key.startswith(f"{network}.") for key in tensors) else "student"
    state = _below(tensors, f"{chosen}.")
    if not state and chosen not in (held := facts.get("networks") or ()):
        raise UserError(f"{tensors_path} contains only the {', '.join(map(str, held))}")
    for key, value in state.items():
        if not value.isfinite().all():
            raise DamagedFileError(
                f"{tensors_path}: weights {key} are not finite, so training has diverged; train "
                "again with a smaller --learning-rate"
            )
    description = facts["model"]
    taxonomy = read_taxonomy(facts, tensors_path.with_suffix(".json"))
    try:
        model = rebuild_network(description)
        model.load_state_dict(state)
    except Exception as error:
        reason = first_line(error).rstrip(":")
        raise DamagedFileError(
            f"{tensors_path} does not fit the network that its JSON file describes ({reason}); "
            "copy both files again"
        ) from error
    domain = read_domain(facts, tensors_path, network=chosen, tensors=tensors)
    biases = class_biases_of(facts, chosen)
    return LoadedModel(model.eval().requires_grad_(False), taxonomy, facts, chosen, domain, biases)


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
    candidate = path / "best.safetensors"
    if candidate.is_file():
        return candidate
    if folder := installed_folder(path):
        return folder / "best.safetensors"
    if (path / "folds.json").is_file():
        raise UserError(
            f"{path} has one model for each fold; give one of them, such as {path / 'fold-1'}"
        )
    if path.is_dir():
        raise MissingFileError(
            f"{path} contains no best.safetensors; give the folder of a finished `s5mars train` run"
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
    facts = read_object(path, kind="description of a checkpoint", way_out="copy it again")
    check_facts(facts, path)
    return facts


def check_facts(facts: Mapping[str, Any], path: Path) -> None:
    """Check that facts describe a model, so that later code can rely on it.

    Raises:
        UserError: if they do not.
    """
    if facts.get("format") != FORMAT:
        raise UserError(
            f"{path} has checkpoint format {facts.get('format')!r}, this version reads {FORMAT}"
        )
    with reading(path, kind="description of a checkpoint", way_out="copy it again"):
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


def without_class_biases(
    loaded: LoadedModel[Model], path: str | PathLike[str]
) -> LoadedModel[Model]:
    """The model without its class biases.

    Raises:
        UserError: if they are a part of its network, as in an ONNX file.
    """
    if loaded.class_biases is None and class_biases_of(loaded.facts, loaded.network):
        raise UserError(
            f"the class biases of {fspath(path)} are a part of the file; use the run that it was "
            "exported from"
        )
    return replace(loaded, class_biases=None)


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


def write_domain(run: Path, domain: Domain) -> None:
    """Add the record of the training images to a checkpoint; saving weights again drops it."""
    tensors_path = checkpoint_path(run)
    facts = read_facts(tensors_path)
    tensors = _read_tensors(tensors_path)
    tensors = {k: v for k, v in tensors.items() if not k.startswith(_DOMAIN)}
    tensors |= {f"{_DOMAIN}{k}": torch.from_numpy(v) for k, v in domain.arrays().items()}
    write_bytes(tensors_path, save(tensors))
    write_json(tensors_path.with_suffix(".json"), {**facts, "domain": domain.to_dict()})


def read_domain(
    facts: Mapping[str, Any],
    path: Path,
    *,
    network: str,
    tensors: Mapping[str, Tensor] = MappingProxyType({}),
) -> Domain | None:
    """Read the record of ``write_domain``, if any; features of another network are left out.

    Raises:
        UserError: if it is damaged.
    """
    if facts.get("domain") is None:
        return None
    with reading(path, kind="description of training images", way_out="copy both files again"):
        arrays = {k: v.float().numpy() for k, v in _below(tensors, _DOMAIN).items()}
        same = facts["domain"]["network"] == network
        return Domain.from_dict(facts["domain"], arrays if same else {})


def _read_tensors(path: Path) -> dict[str, Tensor]:
    with reading(path, kind="checkpoint", way_out="train again, or copy it again"):
        return load_file(path)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def without_folders(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts for sharing: local paths are reduced to their last component."""
    paths = ("data", "labelled", "pool", "teacher", "run")
    return {
        key: Path(value).name if key in paths and isinstance(value, str) else value
        for key, value in facts.items()
    }


def read_taxonomy(facts: Mapping[str, Any], path: Path) -> Taxonomy:
    """The classes of a checkpoint.

    Raises:
        UserError: if they are damaged, or their number is not that of the network.
    """
    with reading(path, kind="description of a model", way_out="copy it again"):
        try:
            taxonomy = Taxonomy.from_dict(facts["taxonomy"])
        except UserError as error:
            raise ValueError(str(error)) from error  # `reading` adds the file name
        classes = facts["model"]["classes"]
        if len(taxonomy) != classes:
            raise ValueError(f"its taxonomy has {len(taxonomy)} classes, its network {classes}")
        return taxonomy
