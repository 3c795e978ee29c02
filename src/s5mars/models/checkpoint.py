"""Checkpoints for sharing: weights as safetensors, metadata as JSON. No pickle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from s5mars.classes import Taxonomy
from s5mars.data.resolution import FULL, Resolution
from s5mars.errors import DamagedFileError, UserError, first_line, require_choice
from s5mars.files import write_bytes, write_json
from s5mars.files.reading import reading
from s5mars.models.build import rebuild_network
from s5mars.models.domain import Domain
from s5mars.models.facts import (
    FORMAT,
    NETWORKS,
    checkpoint_path,
    class_biases_of,
    read_domain,
    read_facts,
    read_taxonomy,
    temperature_of,
)
from s5mars.models.network import SegmentationNetwork
from s5mars.models.state_files import below_prefix
from s5mars.models.tuning import shared_state

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
    networks: Mapping[str, SegmentationNetwork],
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


def load_model(
    path: str | PathLike[str], *, network: str = "teacher"
) -> LoadedModel[SegmentationNetwork]:
    """Read a checkpoint written by ``save_model``.

    Args:
        path: a run folder, its ``best.safetensors``, or the name of an installed model.
        network: ``teacher`` (falls back to the student if the method has no teacher) or
            ``student``.

    Raises:
        MissingFileError: if there is no checkpoint.
        UserError: if it is damaged, needs a newer version of s5mars, or lacks the chosen network.
    """
    require_choice(network, NETWORKS, name="network")
    tensors_path = checkpoint_path(Path(path))
    facts = read_facts(tensors_path)
    tensors = _read_tensors(tensors_path)
    chosen = network if any(key.startswith(f"{network}.") for key in tensors) else "student"
    state = below_prefix(tensors, f"{chosen}.")
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
    except UserError as error:  # the file may be intact, but a package is missing or too old
        raise UserError(f"{tensors_path}: {error}") from error
    except Exception as error:
        reason = first_line(error).rstrip(":")
        raise DamagedFileError(
            f"{tensors_path} does not fit the network that its JSON file describes ({reason}); "
            "copy both files again"
        ) from error
    arrays = {k: v.float().numpy() for k, v in below_prefix(tensors, _DOMAIN).items()}
    domain = read_domain(facts, tensors_path, network=chosen, arrays=arrays)
    biases = class_biases_of(facts, chosen)
    return LoadedModel(model.eval().requires_grad_(False), taxonomy, facts, chosen, domain, biases)


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


def write_domain(run: Path, domain: Domain) -> None:
    """Add the record of the training images to a checkpoint; saving weights again drops it."""
    tensors_path = checkpoint_path(run)
    facts = read_facts(tensors_path)
    tensors = _read_tensors(tensors_path)
    tensors = {k: v for k, v in tensors.items() if not k.startswith(_DOMAIN)}
    tensors |= {f"{_DOMAIN}{k}": torch.from_numpy(v) for k, v in domain.arrays().items()}
    write_bytes(tensors_path, save(tensors))
    write_json(tensors_path.with_suffix(".json"), {**facts, "domain": domain.to_dict()})


def _read_tensors(path: Path) -> dict[str, Tensor]:
    with reading(path, kind="checkpoint", remedy="train again, or copy it again"):
        return load_file(path)
