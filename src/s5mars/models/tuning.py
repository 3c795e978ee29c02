"""Training of a timm encoder: frozen, low-rank adapters, learning rates by layer."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from timm.models import group_parameters
from torch import Tensor, nn

from s5mars.errors import UserError, needed
from s5mars.models.segmenter import Segmenter
from s5mars.settings.config import TrainConfig
from s5mars.settings.used import require_default

if TYPE_CHECKING:
    from s5mars.models.network import SegmentationNetwork

_ATTENTION = re.compile(r"\.attn\.(qkv|q_proj|k_proj|v_proj|proj)$")
"""Linear layers that get adapters: all four of Hu et al., "LoRA", ICLR 2022, section 4.2."""


def check_tuning(config: TrainConfig) -> None:
    """Check that the settings of the encoder's training fit together.

    Raises:
        UserError: with the options that do not.
    """
    if config.tiles and config.scale != TrainConfig.scale:
        raise UserError(
            f"--scale {list(config.scale)} cannot be combined with tiles, which have the scale of "
            "the image; use --crops random (features are then computed in each step), or leave it "
            "out"
        )
    if config.freeze == "none":
        if config.feature_cache is not None:
            raise UserError("--feature-cache requires --freeze encoder")
        return
    if config.feature_cache is not None and not config.tiles:
        raise UserError(
            "--feature-cache cannot be combined with --crops random; leave one of them out"
        )
    names = (
        "lora", "drop_path", "gradient_checkpointing", "freeze_norm", "layer_decay", "encoder_rate"
    )  # fmt: skip
    require_default(config, names, "--freeze encoder")


def tune(network: Segmenter, config: TrainConfig) -> None:
    """Prepare the encoder of a network for training, in place.

    Raises:
        UserError: if the encoder does not fit the settings, or peft is missing.
    """
    if config.lora:
        add_adapters(network, config.lora)
    if config.layer_decay != 1:
        layer_rates(network, 1.0, config.layer_decay)  # fails early
    if config.gradient_checkpointing:
        _checkpoint_gradients(network.encoder, config.model)
    if config.freeze_norm and not _has_batch_norm(network.encoder):
        raise UserError(
            f"--freeze-norm has no effect with --model {config.model}, which has no batch "
            "statistics; leave it out"
        )
    if config.freeze == "encoder":
        cache = config.feature_cache or config.out / "features"
        network.freeze(cache=cache if config.tiles else None)


def add_adapters(network: Segmenter, rank: int) -> None:
    """Add low-rank adapters to the attention of the encoder, whose own weights are then fixed.

    An adapter begins as zero, so the network does not change.

    Raises:
        UserError: if the encoder has no attention that calls its linear layers, or peft is missing.
    """
    peft = needed("peft", extra="lora")
    targets = [
        name
        for name, module in network.encoder.named_modules()
        if isinstance(module, nn.Linear) and _ATTENTION.search(name)
    ]
    if not targets:
        raise UserError(
            f"--lora needs an encoder with attention, such as vit_small_patch14_dinov2; "
            f"{network.description['encoder']} has none"
        )
    _call_all_layers(network)
    settings = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
    peft.inject_adapter_in_model(settings, network.encoder)


def _call_all_layers(network: Segmenter) -> None:
    """Make each attention with biases of its own call its ``qkv`` layer, which may be replaced.

    timm's default hands the weight of this layer to one function together with the biases, so that
    an adapter in the place of the layer would have no effect.
    """
    attention: Any
    for attention in network.encoder.modules():
        if getattr(attention, "q_bias", None) is None:
            continue
        if not hasattr(attention, "qkv_bias_separate"):
            raise UserError(
                f"--lora cannot be used with {network.description['encoder']}, whose "
                f"{type(attention).__name__} does not call its linear layers; use an encoder such "
                "as vit_small_patch14_dinov2, or update timm"
            )
        attention.qkv_bias_separate = True


def shared_state(network: nn.Module) -> Mapping[str, Tensor]:
    """The state of a network as others load it: adapters are merged into the weights."""
    state: Mapping[str, Tensor] = network.state_dict()
    if not any(".lora_A." in key for key in state):
        return state
    merged: Any = copy.deepcopy(network)
    for name, layer in list(merged.named_modules()):
        if hasattr(layer, "lora_A"):
            layer.merge()
            parent, _, own = name.rpartition(".")
            setattr(merged.get_submodule(parent), own, layer.get_base_layer())
    return dict(merged.state_dict())


def describe_network(network: SegmentationNetwork, config: TrainConfig) -> list[str]:
    """Describe the network of a new run: decoder, parameters, settings, and its initial weights."""
    start = [str(network.weights_report), *network.weights_report.details]
    if not isinstance(network, Segmenter):
        return start
    if network.licence is not None:
        start.append(str(network.licence))
    inside = {id(parameter) for parameter in network.encoder.parameters()}
    trained = [p for p in network.parameters() if p.requires_grad]
    of_encoder = sum(p.numel() for p in trained if id(p) in inside)
    decoder = sum(p.numel() for p in network.parameters() if id(p) not in inside)
    lines = [
        f"network: {config.model} with head {network.NAME}; {of_encoder / 1e6:.2f} M parameters of "
        f"the encoder and {decoder / 1e6:.2f} M of the head are trained"
    ]
    multiple = network.layout.multiple
    if config.crop % multiple:
        side = config.crop + -config.crop % multiple
        lines.append(
            f"crops of {config.crop} pixels are padded to {side}, a multiple of {multiple}; "
            f"--crop {side} needs no padding"
        )
    if network.cache_folder is not None:
        lines.append(
            f"frozen encoder: crops are whole tiles and their flips; features are cached in "
            f"{network.cache_folder}"
        )
    return [*lines, *start]


def layer_rates(network: nn.Module, rate: float, decay: float) -> dict[nn.Parameter, float]:
    """Factor on the learning rate of each parameter of the encoder.

    Args:
        network: one with an encoder, or without.
        rate: factor of the last layer.
        decay: factor from each layer to the one before it (Clark et al., "ELECTRA", ICLR 2020).

    Raises:
        UserError: if the encoder does not name its layers.
    """
    encoder: Any = getattr(network, "encoder", None)
    if encoder is None:
        return {}
    if decay == 1:
        return dict.fromkeys(encoder.parameters(), rate)
    model: Any = getattr(encoder, "model", None)
    if not hasattr(model, "group_matcher"):
        raise UserError(
            "--layer-decay needs an encoder whose layers timm lists, such as "
            "vit_small_patch14_dinov2; use --encoder-rate"
        )
    layers: dict[str, int] = group_parameters(model, model.group_matcher(coarse=False),
                                              reverse=True)  # fmt: skip
    last = max(layers.values())
    return {
        parameter: rate * decay ** (last - layers[name])
        for name, parameter in model.named_parameters()
    }


def _checkpoint_gradients(encoder: Any, name: str) -> None:
    if _has_batch_norm(encoder):
        raise UserError(
            f"--gradient-checkpointing would update the batch statistics of {name} twice in a "
            "step; use an encoder without batch normalisation, such as a ViT, ConvNeXt or Swin"
        )
    model = getattr(encoder, "model", encoder)
    try:
        model.set_grad_checkpointing(True)
    except (AttributeError, AssertionError) as error:
        raise UserError(f"--gradient-checkpointing is not supported by {name}") from error


def _has_batch_norm(encoder: nn.Module) -> bool:
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in encoder.modules())
