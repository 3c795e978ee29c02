"""The side adapter of SAN: a small transformer that predicts masks and attention biases for CLIP.

Xu et al., CVPR 2023, section 3.2 and figure 3. Queries and image patches pass through a narrow
vision transformer, where CLIP's tokens of four depths are added to the patches. Each query then
gives a mask, ⟨q, pixel⟩, and for each attention head of CLIP a bias, ⟨q, pixel of that head⟩.

From the paper: 8 layers of width 240 with 6 heads, patches of 16 pixels, 100 queries; CLIP's stem
and layers 3, 6 and 9 of 12 are fused into the stem and layers 1, 2 and 3 by a 1×1 convolution and
addition; query, pixel and bias projections of three layers and 256 channels. From the released
code (from memory): layer normalisation before that convolution, positions added
again before every layer, one bias for all of CLIP's last layers with a learned scale and shift,
and supervision after layers 7 and 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from s5mars.models.clip_tower import resized_grid


@dataclass(frozen=True, kw_only=True)
class AdapterShape:
    """Sizes of the published adapter."""

    width: int = 240
    depth: int = 8
    heads: int = 6
    patch: int = 16
    queries: int = 100
    side: int = 640  # image side of the position embeddings, pixels
    channels: int = 256  # channels of the projections
    fused: int = 4  # number of CLIP's depths that are added to the stem and the first layers
    supervised: tuple[int, ...] = (7, 8)  # layers with a loss in training; inference uses the last


class Proposed(NamedTuple):
    """Output of the queries at one depth."""

    masks: Tensor  # (B, Q, h, w) logits, one per patch of the adapter
    bias: Tensor  # (B, heads of CLIP, Q, h, w), added to attention logits


class SideAdapter(nn.Module):
    """The side adapter, as described in the module docstring, for CLIP of this width and heads."""

    def __init__(self, clip_width: int, clip_heads: int, shape: AdapterShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or AdapterShape()
        self.clip_heads = clip_heads
        width, grid = shape.width, shape.side // shape.patch
        self.patches = nn.Conv2d(3, width, shape.patch, stride=shape.patch)
        self.positions = nn.Parameter(torch.randn(1, grid * grid, width) * 0.02)
        self.queries = nn.Parameter(torch.randn(1, shape.queries, width) * 0.02)
        self.query_positions = nn.Parameter(torch.randn(1, shape.queries, width) * 0.02)
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.layers = nn.ModuleList(
            Block(width, shape.heads, qkv_bias=True, norm_layer=norm) for _ in range(shape.depth)
        )
        self.fusion = nn.ModuleList(_Fusion(clip_width, width) for _ in range(shape.fused))
        self.to_query = _Projection(width, shape.channels, shape.channels)
        self.to_pixel = _Projection(width, shape.channels, shape.channels)
        self.to_bias = _Projection(width, shape.channels, shape.channels * clip_heads)
        self.bias_scale = nn.Linear(1, 1)

    def forward(self, pixels: Tensor, clip: Sequence[Tensor]) -> list[Proposed]:
        """Masks and biases after each supervised layer; in evaluation mode after the last only.

        Args:
            pixels: (B, 3, H, W) float, normalised; H and W whole patches.
            clip: ``fused`` maps (B, D, h, w) of CLIP's patches, from shallow to deep.
        """
        grid = self.patches(pixels)
        size = (grid.shape[-2], grid.shape[-1])
        queries = self.queries.shape[1]
        of_patches = resized_grid(self.positions[0], size).unsqueeze(0)
        positions = torch.cat([self.query_positions, of_patches], dim=1)
        tokens = torch.cat(
            [self.queries.expand(len(grid), -1, -1), grid.flatten(2).transpose(1, 2)], dim=1
        )
        tokens = self._fused(0, tokens + positions, clip, size)
        found = []
        for number, layer in enumerate(self.layers, 1):
            tokens = self._fused(number, layer(tokens), clip, size)
            if number in self.shape.supervised and (self.training or number == len(self.layers)):
                patches = torch.unflatten(tokens[:, queries:].transpose(1, 2), 2, size)
                found.append(self._proposed(tokens[:, :queries], patches))
            if number < len(self.layers):
                tokens = tokens + positions
        return found

    def _proposed(self, queries: Tensor, patches: Tensor) -> Proposed:
        # A query projection is a linear layer; as a 1×1 convolution it shares its code.
        query = self.to_query(queries.transpose(1, 2)[..., None])[..., 0]  # (B, channels, Q)
        masks = torch.einsum("bcq,bchw->bqhw", query, self.to_pixel(patches))
        of_heads = torch.unflatten(self.to_bias(patches), 1, (self.clip_heads, -1))
        bias = torch.einsum("bcq,bnchw->bnqhw", query, of_heads)
        return Proposed(masks, self.bias_scale(bias[..., None])[..., 0])

    def _fused(
        self, number: int, tokens: Tensor, clip: Sequence[Tensor], size: tuple[int, int]
    ) -> Tensor:
        if number >= len(self.fusion):
            return tokens
        queries = self.queries.shape[1]
        added = self.fusion[number](clip[number], size)
        return torch.cat([tokens[:, :queries], tokens[:, queries:] + added], dim=1)


class _Fusion(nn.Module):
    """Project and resize CLIP's patches to the adapter's patches."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs, eps=1e-6)
        self.project = nn.Conv2d(inputs, outputs, 1)

    def forward(self, patches: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, D, h, w) → (B, H·W, outputs)."""
        normed = self.norm(patches.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        resized = F.interpolate(
            self.project(normed), size=size, mode="bilinear", align_corners=False
        )
        return resized.flatten(2).transpose(1, 2)


class _Projection(nn.Sequential):
    """Three 1×1 convolutions with ReLU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        def inner(width: int) -> nn.Module:
            layer: nn.Module = Conv2dNormActivation(width, hidden, 1, norm_layer=None)
            return layer

        super().__init__(inner(inputs), inner(hidden), nn.Conv2d(hidden, outputs, 1))
