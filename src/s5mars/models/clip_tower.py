"""CLIP's image encoder, cut in two, with the side adapter's [SLS] tokens in its second part.

Xu et al., "Side Adapter Network for Open-Vocabulary Semantic Segmentation", CVPR 2023, section 3.2:
copies of [CLS], one a query, go through the last layers; what each attends to is biased by its
query, and nothing attends to them, so that CLIP's own tokens are as they always are.

The paper's equation lets an [SLS] token attend to the patches alone; the released code, as far as
it is remembered here, lets it attend to itself, too. That is what its weights were trained with,
and what is done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClipTower(nn.Module):
    """The parts of transformers' CLIP that see images; frozen.

    Args:
        vision: ``CLIPModel.vision_model``, or the like.
        projection: to the space shared with text.
        split: layers in the first part; the others see [SLS].
    """

    def __init__(self, vision: Any, projection: nn.Module, *, split: int) -> None:
        super().__init__()
        vision = getattr(vision, "vision_model", vision)
        embeddings = vision.embeddings
        self.patches = embeddings.patch_embedding
        self.class_token = nn.Parameter(embeddings.class_embedding.detach().clone())
        self.positions = nn.Parameter(embeddings.position_embedding.weight.detach().clone())
        self.norm_before = vision.pre_layrnorm
        self.layers: nn.ModuleList = vision.encoder.layers
        self.heads = int(vision.encoder.layers[0].self_attn.num_heads)
        self.norm_after = vision.post_layernorm
        self.projection = projection
        self.split = split
        self.requires_grad_(False).eval()

    @property
    def width(self) -> int:
        """Channels of its tokens."""
        return int(self.class_token.shape[0])

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return int(self.patches.kernel_size[0])

    @torch.no_grad()
    def first_part(self, pixels: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
        """Tokens before the first layer and after each layer up to ``split``.

        Args:
            pixels: (B, 3, H, W) float, normalised; H and W whole patches.

        Returns:
            ``split`` + 1 tensors (B, 1 + h·w, D), [CLS] first, and (h, w).
        """
        grid = self.patches(pixels.to(self.patches.weight.dtype))
        size = (grid.shape[-2], grid.shape[-1])
        patches = grid.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(patches), 1, -1), patches], dim=1)
        tokens = self.norm_before(tokens + resized_positions(self.positions, size))
        kept = [tokens]
        for layer in self.layers[: self.split]:
            tokens = _through(layer, tokens)
            kept.append(tokens)
        return kept, size

    def recognise(self, tokens: Tensor, biases: Sequence[Tensor]) -> list[Tensor]:
        """What CLIP sees with the attention of each query.

        Args:
            tokens: (B, 1 + N, D), the last of ``first_part``.
            biases: each (B, heads, Q, N) float, added to the attention logits of every layer.

        Returns:
            For each bias (B, Q, E), of length one, in the space of the text.
        """
        queries = biases[0].shape[2]
        copies = [tokens[:, :1].expand(-1, queries, -1)] * len(biases)
        for layer in self.layers[self.split :]:
            with torch.no_grad():
                patches = _normed(layer, tokens[:, 1:])
            copies = [
                _through_biased(layer, each, patches, bias)
                for each, bias in zip(copies, biases, strict=True)
            ]
            with torch.no_grad():
                tokens = _through(layer, tokens)
        return [F.normalize(self.projection(self.norm_after(each)), dim=-1) for each in copies]


def resized_positions(positions: Tensor, size: tuple[int, int]) -> Tensor:
    """Position embeddings (1 + n², D), the first of [CLS], for another grid: (1 + h·w, D)."""
    return torch.cat([positions[:1], resized_grid(positions[1:], size)])


def resized_grid(positions: Tensor, size: tuple[int, int]) -> Tensor:
    """Position embeddings of a square grid (n², D) for another one: (h·w, D)."""
    side = round(len(positions) ** 0.5)
    if size == (side, side):
        return positions
    square = positions.T.reshape(1, -1, side, side)
    other = F.interpolate(square, size=size, mode="bicubic", align_corners=False)
    return other[0].flatten(1).T


def _normed(layer: Any, tokens: Tensor) -> Tensor:
    normed: Tensor = layer.layer_norm1(tokens)
    return normed


def _through(layer: Any, tokens: Tensor) -> Tensor:
    attention, normed = layer.self_attn, _normed(layer, tokens)
    query, key, value = (
        _split(project(normed), attention)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    attended = F.scaled_dot_product_attention(query, key, value)
    return _rest(layer, tokens, attended)


def _through_biased(layer: Any, copies: Tensor, patches: Tensor, bias: Tensor) -> Tensor:
    """(B, Q, D) through a layer that looks at itself and at patches (B, N, D), normed already."""
    attention, normed = layer.self_attn, _normed(layer, copies)
    query = _split(attention.q_proj(normed), attention) * attention.head_dim**-0.5
    own_key, own_value = (
        _split(project(normed), attention) for project in (attention.k_proj, attention.v_proj)
    )
    key, value = (
        _split(project(patches), attention) for project in (attention.k_proj, attention.v_proj)
    )
    own = (query * own_key).sum(-1, keepdim=True)
    weights = torch.cat([own, query @ key.transpose(-1, -2) + bias], dim=-1).softmax(-1)
    attended = weights[..., :1] * own_value + weights[..., 1:] @ value
    return _rest(layer, copies, attended)


def _rest(layer: Any, tokens: Tensor, attended: Tensor) -> Tensor:
    joined = attended.transpose(1, 2).flatten(2)
    tokens = tokens + layer.self_attn.out_proj(joined)
    out: Tensor = tokens + layer.mlp(layer.layer_norm2(tokens))
    return out


def _split(tokens: Tensor, attention: Any) -> Tensor:
    """(B, N, D) → (B, heads, N, D / heads)."""
    return torch.unflatten(tokens, -1, (attention.num_heads, -1)).transpose(1, 2)
