"""A CLIP of the true classes with random weights, its tokenizer, and a side adapter's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WIDTH, DEPTH, HEADS, PATCH, SHARED = 32, 4, 2, 16, 24


def model(*, seed: int = 0) -> Any:
    import transformers as t

    torch.manual_seed(seed)
    layers = {"num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "intermediate_size": 48}
    config = t.CLIPConfig(
        vision_config={
            "hidden_size": WIDTH, "image_size": 64, "patch_size": PATCH, "projection_dim": SHARED,
        } | layers,
        text_config={
            "hidden_size": 16, "vocab_size": 514, "max_position_embeddings": 32,
            "bos_token_id": 512, "eos_token_id": 513, "projection_dim": SHARED,
        } | layers | {"num_hidden_layers": 1},
        projection_dim=SHARED,
    )  # fmt: skip
    made = t.CLIPModel(config)
    with torch.no_grad():  # as transformers initialises it, nothing attends to anything
        for name, values in made.named_parameters():
            if values.ndim > 1 and "norm" not in name:
                values.normal_(std=1.5 / values[0].numel() ** 0.5)
    return made.eval()


def save(folder: Path, *, seed: int = 0) -> Path:
    """A folder as on the hub: config, tensors, tokenizer of single letters."""
    import transformers as t

    t.utils.logging.disable_progress_bar()
    model(seed=seed).save_pretrained(folder)
    letters = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    letters += [chr(256 + n) for n in range(256 - len(letters))]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: n for n, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    kind = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 32}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    return folder


def published(network: nn.Module, *, split: int = DEPTH * 3 // 4) -> dict[str, Tensor]:
    """The tensors of a SAN under the names, and in the shapes, of the authors' checkpoint."""
    own = {key: value.clone() for key, value in network.state_dict().items()}
    their: dict[str, Tensor] = {}
    side = "side_adapter_network."
    for key, value in own.items():
        head, _, rest = key.partition(".")
        if head == "adapter":
            their[side + _of_adapter(rest)] = (
                value[..., 0, 0] if rest.startswith("to_query") and value.ndim == 4 else value
            )
    their["ov_classifier.bg_embed"] = own["background"][None]
    their["ov_classifier.logit_scale"] = own["logit_scale"]
    their["ov_classifier.token_embedding.weight"] = torch.zeros(4, 4)
    their["clip_visual_extractor.positional_embedding"] = own["clip.positions"]
    their["clip_rec_head.proj"] = own["clip.projection.weight"].T.contiguous()
    for number in range(DEPTH):
        late = number >= split
        part = "clip_rec_head" if late else "clip_visual_extractor"
        layer = f"{part}.resblocks.{number - split if late else number}"
        for kind in ("weight", "bias"):
            qkv = [own[f"clip.layers.{number}.self_attn.{w}_proj.{kind}"] for w in "qkv"]
            their[f"{layer}.attn.in_proj_{kind}"] = torch.cat(qkv)
            their[f"{layer}.mlp.c_fc.{kind}"] = own[f"clip.layers.{number}.mlp.fc1.{kind}"]
    return their


def _of_adapter(rest: str) -> str:
    names = {"queries": "query_embed", "query_positions": "query_pos_embed",
             "positions": "vit_model.pos_embed"}  # fmt: skip
    if rest in names:
        return names[rest]
    first, _, tail = rest.partition(".")
    if first == "patches":
        return f"vit_model.patch_embed.proj.{tail}"
    if first == "layers":
        return f"vit_model.blocks.{tail}"
    if first == "fusion":
        number, part, kind = tail.split(".")
        return f"fusion_layers.layer_{number}.input_proj.{int(part == 'project')}.{kind}"
    if first == "bias_scale":
        return f"mask_decoder.bias_scaling.{tail}"
    which = {"to_query": "query", "to_pixel": "pix", "to_bias": "attn"}[first]
    layer, kind = tail.split(".")[0], tail.split(".")[-1]
    return f"mask_decoder.{which}_mlp.layers.{layer}.{kind}"
