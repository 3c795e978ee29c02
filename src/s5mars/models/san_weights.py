"""Load the authors' checkpoint of SAN.

These files have detectron2's format: a table ``model`` of tensors whose names start with
``side_adapter_network``, ``clip_visual_extractor`` (CLIP's first layers), ``clip_rec_head`` (its
last layers) and ``ov_classifier`` (CLIP's text encoder, and the embedding of "no object"). The
names are written from memory of the released code and were not checked against a published file.
Therefore every tensor of the file that is not used is reported, and a tensor of the adapter that is
missing from the file is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from s5mars.errors import UserError
from s5mars.models.state_files import read_state
from s5mars.models.weights import WeightsReport

_MODULE = "module."

_ADAPTER = (
    (r"side_adapter_network\.query_embed", "adapter.queries"),
    (r"side_adapter_network\.query_pos_embed", "adapter.query_positions"),
    (r"side_adapter_network\.vit_model\.pos_embed", "adapter.positions"),
    (r"side_adapter_network\.vit_model\.patch_embed\.proj\.(\w+)", r"adapter.patches.\1"),
    (r"side_adapter_network\.vit_model\.blocks\.(.+)", r"adapter.layers.\1"),
    (r"side_adapter_network\.fusion_layers\.layer_(\d+)\.input_proj\.0\.(\w+)",
     r"adapter.fusion.\1.norm.\2"),
    (r"side_adapter_network\.fusion_layers\.layer_(\d+)\.input_proj\.1\.(\w+)",
     r"adapter.fusion.\1.project.\2"),
    (r"side_adapter_network\.mask_decoder\.(query|pix|attn)_mlp\.layers\.([01])\.(\w+)",
     r"adapter.to_\1.\2.0.\3"),
    (r"side_adapter_network\.mask_decoder\.(query|pix|attn)_mlp\.layers\.2\.(\w+)",
     r"adapter.to_\1.2.\2"),
    (r"side_adapter_network\.mask_decoder\.bias_scaling\.(\w+)", r"adapter.bias_scale.\1"),
    (r"ov_classifier\.bg_embed", "background"),
    (r"ov_classifier\.logit_scale", "logit_scale"),
)  # fmt: skip
_CLIP = (
    (r"clip_visual_extractor\.class_embedding", "clip.class_token"),
    (r"clip_visual_extractor\.positional_embedding", "clip.positions"),
    (r"clip_visual_extractor\.conv1\.weight", "clip.patches.weight"),
    (r"clip_visual_extractor\.ln_pre\.(\w+)", r"clip.norm_before.\1"),
    (r"clip_rec_head\.ln_post\.(\w+)", r"clip.norm_after.\1"),
    (r"clip_rec_head\.proj", "clip.projection.weight"),
)
_LAYER = re.compile(r"(clip_visual_extractor|clip_rec_head)\.resblocks\.(\d+)\.(.+)")
_OF_LAYER = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip
_SHORT = {"to_pix.": "to_pixel.", "to_attn.": "to_bias."}


@dataclass(frozen=True)
class AdapterReport(WeightsReport):
    """Source of SAN's weights, and the tensors of the file that were not used."""

    unplaced: tuple[str, ...] = ()

    @property
    def details(self) -> list[str]:
        """One line per unused tensor."""
        return [f"not placed: {name}" for name in self.unplaced]


def load_san(network: nn.Module, path: Path, *, split: int) -> AdapterReport:
    """Load the authors' checkpoint into a SAN, in place.

    The image encoder of CLIP in the file is loaded as well, because the released run trains its
    position embedding.

    ``split`` is the number of CLIP's layers before those of ``clip_rec_head``.

    Raises:
        MissingFileError: if the file does not exist.
        UserError: if it is not such a checkpoint, or sizes differ.
    """
    state = read_state(path)
    placed, unplaced = matched_tensors(state, split=split)
    own = network.state_dict()
    for key in [key for key in placed if key not in own]:
        unplaced.append(placed.pop(key)[0])
    wrong = [
        f"{name} {tuple(value.shape)}, here {tuple(own[key].shape)}"
        for key, (name, value) in placed.items()
        if value.numel() != own[key].numel()
    ]
    missing = [
        key
        for key in own
        if key not in placed and (key.startswith("adapter.") or key == "background")
    ]
    if missing or wrong:
        raise UserError(
            f"{path} does not fit this SAN: {len(missing)} tensors missing, {len(wrong)} of "
            f"another shape (first: {(missing or wrong)[0]}); the published checkpoints are for "
            "CLIP ViT-B/16, and ViT-L/14 at 336 pixels"
        )
    # Only the shapes may differ, such as (1, E) for (E,), (1, 1 + N, D) for (1 + N, D).
    network.load_state_dict(
        {key: value.reshape(own[key].shape) for key, (_, value) in placed.items()}, strict=False
    )
    return AdapterReport(path.name, len(placed), len(own), len(unplaced), tuple(sorted(unplaced)))


def matched_tensors(
    state: Mapping[str, Tensor], *, split: int
) -> tuple[dict[str, tuple[str, Tensor]], list[str]]:
    """Our name → (their name, tensor), and their names without a counterpart."""
    placed: dict[str, tuple[str, Tensor]] = {}
    unplaced = []
    for original, value in state.items():
        name = original.removeprefix(_MODULE)
        found = _targets(name, value, split)
        if not found:
            unplaced.append(original)
        placed |= {key: (original, part) for key, part in found.items()}
    return placed, unplaced


def _targets(name: str, value: Tensor, split: int) -> dict[str, Tensor]:
    for pattern, ours in (*_ADAPTER, *_CLIP):
        if found := re.fullmatch(pattern, name):
            key = found.expand(ours)
            for theirs, short in _SHORT.items():
                key = key.replace(theirs, short)
            if key == "clip.projection.weight":
                value = value.T  # their matrix multiplies from the right
            elif re.fullmatch(r"adapter\.to_query\..*weight", key):
                value = value[..., None, None]  # a linear layer there, a 1×1 convolution here
            return {key: value}
    if not (found := _LAYER.fullmatch(name)):
        return {}
    number = int(found[2]) + (split if found[1] == "clip_rec_head" else 0)
    layer, rest = f"clip.layers.{number}", found[3]
    if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = rest.rpartition("_")[2]
        parts = torch.chunk(value, 3)
        return {
            f"{layer}.self_attn.{which}_proj.{kind}": part
            for which, part in zip("qkv", parts, strict=True)
        }
    stem, _, kind = rest.rpartition(".")
    return {f"{layer}.{_OF_LAYER[stem]}.{kind}": value} if stem in _OF_LAYER else {}
