"""Build the network of a run or of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s5mars.classes import Taxonomy
from s5mars.errors import UserError
from s5mars.models import sam_cls as sam
from s5mars.models import san as side
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.settings.config import TrainConfig
from s5mars.settings.networks import DeepLab, SamCls, SideAdapter
from s5mars.types import Method

AnyNetwork = DeepLabV3Plus | sam.SamCls | side.San
"""Networks that can be trained, evaluated and shared."""


def build_network(config: TrainConfig, method: Method, taxonomy: Taxonomy) -> AnyNetwork:
    """Build the network of a new run, on the CPU.

    Raises:
        UserError, MissingFileError: if network, method and settings are incompatible, or weights
            are missing or do not fit.
    """
    check_network(config, method)
    options = config.network
    if isinstance(options, SamCls):
        cache = options.features or config.out / "features"
        return sam.sam_cls(config.weights, len(taxonomy), cache=cache)
    if isinstance(options, SideAdapter):
        if config.steps == 0 and options.checkpoint is None:
            raise UserError(
                "--steps 0 evaluates SAN without training, which requires a trained side adapter; "
                "give the authors' checkpoint with --side-adapter.checkpoint"
            )
        return side.san(
            config.weights, taxonomy, adapter=options.checkpoint, side=options.input_side
        )
    assert isinstance(options, DeepLab)
    return DeepLabV3Plus(
        config.model,
        len(taxonomy),
        output_stride=options.output_stride,
        head=options.decoder,
        weights=config.weights,
        normalisation=options.normalisation,
        multi_grid=options.multi_grid,
        representation=method.needs.representation,
    )


def check_network(config: TrainConfig, method: Method) -> None:
    """Check that network, method and weights fit together.

    Raises:
        UserError: with the option that does not fit.
    """
    needs, options = method.needs, config.network
    if needs.queries and not isinstance(options, SideAdapter):
        raise UserError(f"--method {config.method} requires --model san (got {config.model})")
    if needs.pool and options.methods:
        raise UserError(
            f"--model {config.model} trains on labelled images only; use --method {options.methods}"
        )
    if options.weights and config.weights in {"auto", "none"}:
        raise UserError(
            f"--model {config.model} requires --weights: a folder of {options.weights} in "
            "transformers' layout or a hub id"
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
