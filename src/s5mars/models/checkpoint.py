"""Checkpoints for sharing: safetensors for the numbers, one JSON for the facts. No pickle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Generic, TypeVar

from safetensors.torch import load_file, save
from torch import Tensor

from s5mars.classes import Taxonomy
from s5mars.data.resolution import FULL, Resolution
from s5mars.errors import DamagedFileError, MissingFileError, UserError, first_line
from s5mars.files import replacing, write_json
from s5mars.files.reading import read_object, reading
from s5mars.models.build import AnyNetwork, rebuild_network

FORMAT = 1
NETWORKS = ("teacher", "student")


Model = TypeVar("Model", bound=Callable[[Tensor], Tensor], covariant=True)


@dataclass(frozen=True)
class LoadedModel(Generic[Model]):
    """A network ready for inference, its classes, and what is known about its training."""

    model: Model
    taxonomy: Taxonomy
    facts: dict[str, Any]
    network: str  # "teacher" or "student": which of the two was loaded

    @property
    def resolution(self) -> Resolution:
        """What images are resized to before this network sees them."""
        return Resolution.parse(self.facts.get("resolution", str(FULL)))

    @property
    def temperature(self) -> float:
        """What ``s5mars calibrate`` found for this network; 1 where it never ran."""
        return temperature_of(self.facts, self.network)


def save_model(
    path: Path,
    networks: Mapping[str, AnyNetwork],
    *,
    taxonomy: Taxonomy,
    training: dict[str, Any],
    resolution: Resolution = FULL,
) -> None:
    """Write ``path`` (safetensors) and ``path`` with the ending .json.

    Args:
        path: such as ``runs/a/best.safetensors``.
        networks: ``student`` and, where there is one, ``teacher``.
        taxonomy: the classes.
        training: facts for the JSON: method, data, seed, step, score, protocol.
        resolution: what images were resized to in training.
    """
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, network in networks.items()
        for key, value in network.state_dict().items()
        # A head that only training uses; every reader does without it.
        if not key.startswith("representation.")
    }
    student = networks["student"]
    facts = {
        "format": FORMAT,
        "networks": sorted(networks),
        "taxonomy": taxonomy.to_dict(),
        "model": student.description,
        "resolution": str(resolution),
        "normalisation": {
            "mean": student.mean.flatten().tolist(),
            "std": student.std.flatten().tolist(),
        },
        "training": training,
    }
    # The numbers first: a JSON without its tensors would look whole.
    with replacing(path) as temporary:
        # Not `save_file`: it reports a full disk as an error of its own and makes the file private.
        temporary.write_bytes(save(tensors))
    write_json(path.with_suffix(".json"), facts)


def load_model(path: str | PathLike[str], *, network: str = "teacher") -> LoadedModel[AnyNetwork]:
    """Read a checkpoint written by ``save_model``.

    Args:
        path: a run folder, or its ``best.safetensors``.
        network: ``teacher`` (falls back to the student where the method has no teacher) or
            ``student``.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if it is damaged, of an unknown format, or lacks the network.
    """
    if network not in NETWORKS:
        raise UserError(f"unknown network {network!r}; choose {', '.join(NETWORKS)}")
    tensors_path = checkpoint_path(Path(path))
    facts = read_facts(tensors_path)
    with reading(tensors_path, kind="checkpoint", way_out="train again, or copy it again"):
        tensors = load_file(tensors_path)
    chosen = network if any(key.startswith(f"{network}.") for key in tensors) else "student"
    state = {
        key.removeprefix(f"{chosen}."): value
        for key, value in tensors.items()
        if key.startswith(f"{chosen}.")
    }
    for key, value in state.items():
        if not value.isfinite().all():
            raise DamagedFileError(
                f"{tensors_path}: its weights {key} are not finite, so that training has failed: "
                "train again, with a smaller --learning-rate"
            )
    description = facts["model"]
    taxonomy = read_taxonomy(facts, tensors_path.with_suffix(".json"))
    try:
        model = rebuild_network(description)
        model.load_state_dict(state)
    except Exception as error:
        reason = first_line(error).rstrip(":")
        raise DamagedFileError(
            f"{tensors_path} does not fit the network that its JSON describes ({reason}): the two "
            "belong together, copy both again"
        ) from error
    return LoadedModel(model.eval().requires_grad_(False), taxonomy, facts, chosen)


def checkpoint_path(path: Path) -> Path:
    """The safetensors file of a run folder or of itself.

    Raises:
        FileNotFoundError: saying what was looked for.
        ValueError: if it is an ONNX file.
    """
    if path.suffix.lower() == ".onnx":
        raise UserError(f"{path} is an ONNX file: give the run that it was exported from")
    if path.is_file():
        return path
    candidate = path / "best.safetensors"
    if candidate.is_file():
        return candidate
    if path.is_dir():
        raise MissingFileError(
            f"{path} holds no best.safetensors: give the folder of a finished `s5mars train` run"
        )
    raise MissingFileError(f"no run and no checkpoint at {path}")


def read_facts(tensors_path: Path) -> dict[str, Any]:
    """The JSON beside a checkpoint.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it is damaged or of another format.
    """
    path = tensors_path.with_suffix(".json")
    if not path.is_file():
        raise MissingFileError(f"{path} is missing: a checkpoint is two files, keep both")
    facts = read_object(path, kind="description of a checkpoint", way_out="copy it again")
    check_facts(facts, path)
    return facts


def check_facts(facts: Mapping[str, Any], path: Path) -> None:
    """Refuse facts that are no description of a model: what reads them later may rely on it.

    Raises:
        UserError: naming what is wrong.
    """
    if facts.get("format") != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {facts.get('format')!r}, this version reads {FORMAT}"
        )
    with reading(path, kind="description of a checkpoint", way_out="copy it again"):
        for key in ("taxonomy", "model", "training"):
            if not isinstance(facts[key], dict):
                raise TypeError(f"{key} is no table")
        for network in NETWORKS:
            temperature_of(facts, network)


def temperature_of(facts: Mapping[str, Any], network: str) -> float:
    """The temperature that a checkpoint's facts carry for one of its networks, else 1.

    Raises:
        ValueError: if what they carry is no temperature.
    """
    try:
        entry = (facts.get("calibration") or {}).get(network)
        temperature = 1.0 if entry is None else float(entry["temperature"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its calibration is no table with a temperature ({error})") from error
    if not 0 < temperature < float("inf"):
        raise ValueError(f"a temperature of {temperature}")
    return temperature


def write_calibration(run: Path, network: str, entry: Mapping[str, Any]) -> None:
    """Note a temperature in the JSON of a checkpoint; better weights, saved later, drop it.

    Args:
        run: a run folder, or a checkpoint.
        network: the network it was fitted for.
        entry: ``temperature``, and what it was fitted on.
    """
    tensors_path = checkpoint_path(run)
    facts = read_facts(tensors_path)
    known = {**(facts.get("calibration") or {}), network: dict(entry)}
    write_json(tensors_path.with_suffix(".json"), {**facts, "calibration": known})


def without_folders(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts for strangers: paths of this machine, cut to their last part."""
    paths = ("data", "labelled", "pool", "teacher", "run")
    return {
        key: Path(value).name if key in paths and isinstance(value, str) else value
        for key, value in facts.items()
    }


def read_taxonomy(facts: Mapping[str, Any], path: Path) -> Taxonomy:
    """The classes that a checkpoint's facts name.

    Raises:
        ValueError: if they are damaged, or not as many as the network has.
    """
    with reading(path, kind="description of a model", way_out="copy it again"):
        try:
            taxonomy = Taxonomy.from_dict(facts["taxonomy"])
        except UserError as error:
            raise ValueError(str(error)) from error  # it does not name the file
        classes = facts["model"]["classes"]
        if len(taxonomy) != classes:
            raise ValueError(f"its taxonomy has {len(taxonomy)} classes, its network {classes}")
        return taxonomy
