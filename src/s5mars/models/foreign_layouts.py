"""Tensor names of other libraries → timm's, for ViTs.

transformers' DINOv2 (with and without registers) and DINOv3 are renamed here to the names that
Meta published them under; timm's own converter takes it from there, as it does with Meta's files.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from s5mars.errors import UserError
from s5mars.models.state_files import below_prefix

KINDS = ("dinov2", "dinov2_with_registers", "dinov3_vit")
"""``model_type`` of transformers whose names are known."""

_PATCHES = re.compile(r"^(?P<prefix>.*)embeddings\.patch_embeddings\.(projection\.)?weight$")
_BLOCK = re.compile(r"^(?:model\.|encoder\.)?layer\.(\d+)\.(.+)$")

_OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "embeddings.patch_embeddings.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
    "norm.weight": "norm.weight",
    "norm.bias": "norm.bias",
}
_INSIDE = {
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.weights_in": "mlp.w12",
    "mlp.weights_out": "mlp.w3",
}
_PLAIN_MLP = {"mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2"}
_GATED_MLP = {"mlp.gate_proj": "mlp.w1", "mlp.up_proj": "mlp.w2", "mlp.down_proj": "mlp.w3"}
_PROJECTIONS = (
    ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
)


def in_timm_layout(state: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Tensors under the names of a timm ViT, if they have those of Meta; else unchanged.

    Position embeddings are interpolated if the file has another number of them.

    Raises:
        UserError: if the model has no place for the biases of the file's attention.
    """
    patches, own = state.get("patch_embed.proj.weight"), model.patch_embed.proj.weight
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None or patches is None or patches.shape != own.shape:
        return dict(state)  # timm would resample the patches to another size
    given = dict(state)
    if "storage_tokens" in given and getattr(model.blocks[0].attn, "q_bias", None) is None:
        biases = [key for key in given if key.endswith("attn.qkv.bias")]
        if any(given.pop(key).any() for key in biases):
            raise UserError(
                "the attention of these weights has biases, which this encoder does not have; "
                "choose the --model of the same name that ends in _qkvb"
            )
    converted: dict[str, Tensor] = convert(given, model)
    return converted


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Tensors of transformers' DINOv2 or DINOv3 under Meta's names; None if they are others."""
    found = next((m for key in state if (m := _PATCHES.match(key))), None)
    if found is None:
        return None
    prefix = found["prefix"]
    given = below_prefix(state, prefix)
    renamed: dict[str, Tensor] = {}
    dinov3 = any(".attention.o_proj." in key for key in given) and (
        "embeddings.position_embeddings" not in given
    )
    tokens = "storage_tokens" if dinov3 else "register_tokens"
    blocks: dict[int, dict[str, Tensor]] = {}
    for key, value in given.items():
        if key in _OUTSIDE:
            renamed[_OUTSIDE[key]] = value
        elif key == "embeddings.register_tokens":
            renamed[tokens] = value
        elif match := _BLOCK.match(key):
            blocks.setdefault(int(match[1]), {})[match[2]] = value
    # timm recognises both by this token, which is used in pretraining only.
    renamed.setdefault("mask_token", torch.zeros(1, renamed["cls_token"].shape[-1]))
    for number, block in blocks.items():
        for key, value in _block(block).items():
            renamed[f"blocks.{number}.{key}"] = value
    return renamed


def _block(block: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = _INSIDE | (_GATED_MLP if "mlp.gate_proj.weight" in block else _PLAIN_MLP)
    renamed: dict[str, Tensor] = {}
    for projections in _PROJECTIONS:
        parts = [block.get(f"{name}.weight") for name in projections]
        weights = [part for part in parts if part is not None]
        if len(weights) != len(projections):
            continue
        renamed["attn.qkv.weight"] = torch.cat(weights)
        # DINOv3's keys have no bias.
        biases = [block.get(f"{name}.bias") for name in projections]
        if any(bias is not None for bias in biases):
            renamed["attn.qkv.bias"] = torch.cat(
                [w.new_zeros(len(w)) if b is None else b
                 for w, b in zip(weights, biases, strict=True)]
            )  # fmt: skip
    joined = tuple(name for names_ in _PROJECTIONS for name in names_)
    for key, value in block.items():
        if key.startswith(joined):
            continue
        stem, _, last = key.rpartition(".")
        if key in names:
            renamed[names[key]] = value
        else:
            renamed[f"{names.get(stem, stem)}.{last}"] = value
    return renamed
