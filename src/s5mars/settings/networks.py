"""Options of the networks; which of them exist depends on ``--model``.

A new kind of network is a dataclass here and a case in ``models/build.py``. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

from s5mars.errors import require_limit


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Base of the options of a network, with its properties for the rest of a run."""

    group: ClassVar[str]  # prefix of the options, and key in config.yaml
    weights: ClassVar[str] = ""  # model that --weights must hold; "": any or none
    fixed_crops: ClassVar[bool] = False  # whether crops are never scaled, and can be cached
    methods: ClassVar[str] = ""  # methods that train it, for messages; "": all
    zero_shot: ClassVar[bool] = False  # whether it can be scored without training
    paths: ClassVar[tuple[str, ...]] = ()  # options that are a path

    def with_absolute_paths(self) -> Self:
        """The same options for a run that is resumed in any directory."""
        given = {name: value for name in self.paths if (value := getattr(self, name)) is not None}
        changed = {name: type(value)(Path(value).absolute()) for name, value in given.items()}
        return replace(self, **changed)


@dataclass(frozen=True, kw_only=True)
class DeepLabOptions(NetworkOptions):
    """DeepLabV3+, and any timm encoder

    Args:
        decoder: Name of the decoder of ``--head deeplab``: ``paper``, ``light`` or ``auto`` (paper
            for encoders with 1024 channels or more).
        output_stride: Output stride of the encoder, for any head: 8, 16 or 32.
        normalisation: Input normalisation, for any head: ``encoder`` or ``as_released`` (see
            docs/method.md).
        multi_grid: Factors on the dilation of the last ResNet stage, one per block, such as
            [1, 2, 4].
    """

    group: ClassVar[str] = "deeplab"

    decoder: Literal["auto", "paper", "light"] = "auto"
    output_stride: Literal[8, 16, 32] = 16
    normalisation: Literal["encoder", "as_released"] = "encoder"
    multi_grid: list[int] | None = None


@dataclass(frozen=True, kw_only=True)
class SamClsOptions(NetworkOptions):
    """SAM-CLS of table VI, --model sam-cls

    Args:
        features: Path to the folder that caches the encoder's features; several runs may share it
            (a folder in the run).
    """

    group: ClassVar[str] = "sam"
    weights: ClassVar[str] = "SAM"
    fixed_crops: ClassVar[bool] = True
    methods: ClassVar[str] = "supervised"

    paths: ClassVar[tuple[str, ...]] = ("features",)

    features: Path | None = None


@dataclass(frozen=True, kw_only=True)
class SideAdapterOptions(NetworkOptions):
    """The side adapter of SAN of table VI, --model san

    Args:
        checkpoint: Path to the authors' checkpoint of the adapter; random weights without it.
        input_side: Length of the shorter side of the resized image in pixels.
    """

    group: ClassVar[str] = "side_adapter"
    weights: ClassVar[str] = "CLIP"
    methods: ClassVar[str] = "san or supervised"
    zero_shot: ClassVar[bool] = True

    paths: ClassVar[tuple[str, ...]] = ("checkpoint",)

    checkpoint: str | None = None
    input_side: int = 640

    def __post_init__(self) -> None:
        require_limit("at least 32 pixels", **{"--side-adapter.input-side": self.input_side})


GENERAL_MODELS: Mapping[str, type[NetworkOptions]] = {
    "sam-cls": SamClsOptions,
    "san": SideAdapterOptions,
}
"""Models of table VI, built on SAM and CLIP; any other model is a timm encoder."""

NETWORKS: tuple[type[NetworkOptions], ...] = (DeepLabOptions, *GENERAL_MODELS.values())


def network_options(model: str) -> type[NetworkOptions]:
    """Options class of a model."""
    return GENERAL_MODELS.get(model, DeepLabOptions)


def misplaced(option: str, model: str) -> str:
    """Reason why ``model`` does not have an option of another network; "" if unknown.

    Args:
        option: as a key, such as ``side_adapter.checkpoint``.
        model: value of ``--model``.
    """
    group = option.partition(".")[0]
    own = network_options(model)
    owners = {kind.group: f"--model {name}" for name, kind in GENERAL_MODELS.items()}
    owners[DeepLabOptions.group] = "a timm encoder"
    if group in owners and group != own.group:
        return f"it is for {owners[group]}, not {model}"
    if option in {"scale", "crops"} and own.fixed_crops:
        return f"--model {model} has fixed crops"
    return ""
