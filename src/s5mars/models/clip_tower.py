"""CLIP's image encoder in two parts, with the side adapter's [SLS] tokens in the second part.

Xu et al., "Side Adapter Network for Open-Vocabulary Semantic Segmentation", CVPR 2023, section 3.2:
copies of [CLS], one per query, pass through the last layers. The attention of each is biased by its
query, and no token attends to them, so that CLIP's own tokens do not change.

In the paper's equation an [SLS] token attends to the patches only; in the released code (from
memory) it also attends to itself. The released weights were trained that way, so this module does
the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClipTower(nn.Module):
    """The image encoder of transformers' CLIP; frozen.

    Args:
        vision: ``CLIPModel.vision_model`` or similar.
        projection: projection to the space shared with text.
        split: number of layers in the first part; [SLS] tokens pass through the others.
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
        """Number of channels of the tokens."""
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
        """Embeddings of CLIP with the attention of each query.

        Args:
            tokens: (B, 1 + N, D), the last of ``first_part``.
            biases: each (B, heads, Q, N) float, added to the attention logits of every layer.

        Returns:
            For each bias (B, Q, E) unit vectors in the space of the text.
        """
        queries = biases[0].shape[2]
        copies = [tokens[:, :1].expand(-1, queries, -1)] * len(biases)
        for layer in self.layers[self.split :]:
            with torch.no_grad():
                patches = _normed(layer, tokens[:, 1:])
            copies = [
                _through_biased(layer, copy, patches, bias)
                for copy, bias in zip(copies, biases, strict=True)
            ]
            with torch.no_grad():
                tokens = _through(layer, tokens)
        return [F.normalize(self.projection(self.norm_after(copy)), dim=-1) for copy in copies]


def resized_positions(positions: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize position embeddings (1 + n², D), [CLS] first, to another grid: (1 + h·w, D)."""
    return torch.cat([positions[:1], resized_grid(positions[1:], size)])


def resized_grid(positions: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize position embeddings of a square grid (n², D) to another grid: (h·w, D)."""
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
    """(B, Q, D) through a layer, attending to itself and to normalised patches (B, N, D)."""
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
