"""Build the network of a run or of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s5mars.classes import Taxonomy
from s5mars.errors import UserError
from s5mars.models import sam_cls as sam
from s5mars.models import san as side
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.models.dpt import Dpt
from s5mars.models.encoders import is_columnar
from s5mars.models.linear import Linear
from s5mars.models.network import SegmentationNetwork
from s5mars.models.segmenter import Segmenter
from s5mars.models.tuning import check_tuning
from s5mars.settings.config import TrainConfig
from s5mars.settings.keywords import as_option
from s5mars.settings.networks import (
    DeepLabOptions,
    NetworkOptions,
    SamClsOptions,
    SideAdapterOptions,
)
from s5mars.settings.used import require_default
from s5mars.types import Method

HEADS: Mapping[str, type[Any]] = {"deeplab": DeepLabV3Plus, "dpt": Dpt, "linear": Linear}
"""Decoders over timm encoders."""


def build_network(config: TrainConfig, method: Method, taxonomy: Taxonomy) -> SegmentationNetwork:
    """Build the network of a new run, on the CPU.

    Raises:
        UserError, MissingFileError: if network, method and settings are incompatible, or weights
            are missing or do not fit.
    """
    check_network(config, method)
    options = config.network
    if isinstance(options, SamClsOptions):
        cache = options.features or config.out / "features"
        return sam.sam_cls(config.weights, len(taxonomy), cache=cache)
    if isinstance(options, SideAdapterOptions):
        if config.steps == 0 and options.checkpoint is None:
            raise UserError(
                "--steps 0 evaluates SAN without training, which requires a trained side adapter; "
                "give the authors' checkpoint with --side-adapter.checkpoint"
            )
        return side.san(
            config.weights, taxonomy, adapter=options.checkpoint, side=options.input_side
        )
    return build_segmenter(
        config.model,
        len(taxonomy),
        head=config.head,
        options=options,
        weights=config.weights,
        representation=method.needs.representation,
        drop_path=config.drop_path,
    )


def build_segmenter(
    encoder: str,
    classes: int,
    *,
    head: str = "auto",
    options: NetworkOptions | None = None,
    weights: str = "none",
    representation: int = 0,
    drop_path: float = 0.0,
) -> Segmenter:
    """Build a decoder over a timm encoder; see ``Segmenter``.

    ``head`` is a key of ``HEADS``, or ``auto``: dpt over plain ViTs, deeplab over others; a second
    head embeds pixels in as many channels as ``representation`` says.

    Raises:
        UserError: if head, options and encoder do not fit together.
    """
    options = options or DeepLabOptions()
    assert isinstance(options, DeepLabOptions)
    if head == "auto":
        head = "dpt" if is_columnar(encoder) else "deeplab"
    kind = HEADS[head]
    common: dict[str, Any] = {
        "output_stride": options.output_stride,
        "weights": weights,
        "normalisation": options.normalisation,
        "representation": representation,
        "drop_path": drop_path,
    }
    if kind is DeepLabV3Plus:
        return DeepLabV3Plus(
            encoder, classes, head=options.decoder, multi_grid=options.multi_grid, **common
        )
    for name in ("decoder", "multi_grid"):
        if getattr(options, name) != getattr(DeepLabOptions, name):
            raise UserError(
                f"{as_option(f'deeplab.{name}')} is for --head deeplab, but {encoder} has "
                f"--head {head}; leave it out"
            )
    network: Segmenter = kind(encoder, classes, **common)
    return network


def check_network(config: TrainConfig, method: Method) -> None:
    """Check that network, method and weights fit together.

    Raises:
        UserError: with the option that does not fit.
    """
    needs, options = method.needs, config.network
    check_tuning(config)
    if needs.queries and not isinstance(options, SideAdapterOptions):
        raise UserError(f"--method {config.method} requires --model san (got {config.model})")
    if needs.pool and options.methods:
        raise UserError(
            f"--model {config.model} trains on labelled images only; use --method {options.methods}"
        )
    if not isinstance(options, DeepLabOptions):
        require_default(config, ("freeze_norm", "encoder_rate"), f"--model {config.model}")
    if options.weights and config.weights in {"auto", "none"}:
        raise UserError(
            f"--model {config.model} requires --weights: a folder of {options.weights} in "
            "transformers' layout or a hub id"
        )


def rebuild_network(description: Mapping[str, Any]) -> SegmentationNetwork:
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
    kinds = {each.NAME: each for each in HEADS.values()}
    if kind not in kinds:
        raise UserError(f"this version has no network {kind!r}: update s5mars, or train again")
    of_deeplab: dict[str, Any] = {}
    if kind == DeepLabV3Plus.NAME:
        of_deeplab = {name: description[name] for name in ("head", "multi_grid")}
    network: Segmenter = kinds[kind](
        description["encoder"],
        description["classes"],
        output_stride=description["output_stride"],
        normalisation=description["normalisation"],
        weights="none",
        **of_deeplab,
    )
    return network
