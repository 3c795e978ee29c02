"""Build the network of a run or of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s5mars.classes import Taxonomy
from s5mars.errors import UserError
from s5mars.models import sam_cls as sam
from s5mars.models import san as side
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.settings.config import GENERAL_MODELS, TrainConfig
from s5mars.types import Method

AnyNetwork = DeepLabV3Plus | sam.SamCls | side.San
"""Networks that can be trained, evaluated and shared."""

_OF_DEEPLAB = {"head": "--head", "output_stride": "--output-stride",
               "normalisation": "--normalisation", "multi_grid": "--multi-grid"}  # fmt: skip


def build_network(config: TrainConfig, method: Method, taxonomy: Taxonomy) -> AnyNetwork:
    """Build the network of a new run, on the CPU.

    Raises:
        UserError, MissingFileError: if network, method and settings are incompatible, or weights
            are missing or do not fit.
    """
    check_network(config, method)
    if config.model == "sam-cls":
        return sam.sam_cls(
            config.weights, len(taxonomy), cache=config.features or config.out / "features"
        )
    if config.model == "san":
        if config.steps == 0 and config.adapter is None:
            raise UserError(
                "--steps 0 evaluates SAN without training, which requires a trained side adapter; "
                "give the authors' checkpoint with --adapter"
            )
        return side.san(config.weights, taxonomy, adapter=config.adapter, side=config.input_side)
    return DeepLabV3Plus(
        config.model,
        len(taxonomy),
        output_stride=config.output_stride,
        head=config.head,
        weights=config.weights,
        normalisation=config.normalisation,
        multi_grid=config.multi_grid,
        representation=method.needs.representation,
    )


def check_network(config: TrainConfig, method: Method) -> None:
    """Check that network, method and settings are compatible.

    Raises:
        UserError: with the option that does not fit.
    """
    needs, model = method.needs, config.model
    if needs.queries and model != "san":
        raise UserError(f"--method {config.method} requires --model san (got {model})")
    for name, owner in (("adapter", "san"), ("input_side", "san"), ("features", "sam-cls")):
        if getattr(config, name) is not None and model != owner:
            raise UserError(f"--{name.replace('_', '-')} requires --model {owner}")
    if model not in GENERAL_MODELS:
        return
    if needs.pool:
        fitting = "san or supervised" if model == "san" else "supervised"
        raise UserError(f"--model {model} trains on labelled images only; use --method {fitting}")
    default = TrainConfig.__dataclass_fields__
    for name, option in _OF_DEEPLAB.items():
        if getattr(config, name) != default[name].default:
            raise UserError(f"{option} applies to DeepLabV3+ only, not to --model {model}")
    if model == "sam-cls" and tuple(config.scale) != default["scale"].default:
        raise UserError("--scale cannot be used with --model sam-cls, whose crops are fixed")
    if config.weights in {"auto", "none"}:
        what = "SAM" if model == "sam-cls" else "CLIP"
        raise UserError(
            f"--model {model} requires --weights: a folder of {what} in transformers' layout or a "
            "hub id"
        )


def rebuild_network(description: Mapping[str, Any]) -> AnyNetwork:
    """Build the network that a checkpoint describes, without its weights.

    Raises:
        UserError: if the kind of network is unknown, or a package is missing.
        KeyError, TypeError: if the description is damaged.
    """
    kind = description.get("network", "DeepLabV3+")
    if kind == sam.NAME:
        return sam.rebuilt_sam_cls(description)
    if kind == side.NAME:
        return side.rebuilt_san(description)
    if kind != "DeepLabV3+":
        raise UserError(f"unknown network {kind!r}")
    return DeepLabV3Plus(
        description["encoder"],
        description["classes"],
        output_stride=description["output_stride"],
        head=description["head"],
        normalisation=description["normalisation"],
        multi_grid=description["multi_grid"],
        weights="none",
    )
