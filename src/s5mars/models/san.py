"""SAN of table VI: a side adapter on a frozen CLIP, with classes given as text.

Xu et al., "Side Adapter Network for Open-Vocabulary Semantic Segmentation", CVPR 2023. The adapter
(``side_adapter.py``) proposes masks m_q and attention biases from the image and CLIP's own tokens;
CLIP's last layers use the biases and return one embedding per query (``clip_tower.py``), whose
class is that of the nearest text embedding. The segmentation is

    s_c = Σ_q p_q(c) · σ(m_q),    p_q = softmax over the classes and "no object" of 100 · cos,

and the network returns log s_c, so that softmax gives s_c / Σ s.

From the paper: CLIP's input has half the adapter's size; the last 3 of its 12 layers recognise.
From the released code (from memory): test images are resized to a shorter side of 640 pixels; the
input of CLIP ViT-L/14 (24 layers) has 0.7 of the adapter's size, and 6 layers recognise; "no
object" is a learned embedding; the factor 100 is CLIP's own temperature. CLIP is frozen as in the
paper; the released run trains its position embedding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5mars.classes import Taxonomy
from s5mars.errors import needed
from s5mars.models.clip_tower import ClipTower
from s5mars.models.network import SegmentationNetwork
from s5mars.models.pretrained import digest, load_pretrained, pretrained_folder
from s5mars.models.prompts import text_embeddings
from s5mars.models.san_weights import AdapterReport, load_san
from s5mars.models.side_adapter import AdapterShape, SideAdapter
from s5mars.models.weights import WeightsReport

NAME = "SAN"
KINDS = ("clip",)
PATTERNS = ("*.json", "*.safetensors", "merges.txt", "vocab.json")
SIDE = 640
"""Shorter side of an image in pixels."""

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""CLIP's normalisation."""

_LEAST = 1e-8  # smallest score, so that its logarithm is finite
_AT_ONCE = 20  # queries upsampled at a time, which bounds memory for large windows


class QueryOutput(NamedTuple):
    """Output of the queries at one depth of the adapter."""

    masks: Tensor  # (B, Q, h, w) float32 logits at 1/16 of the network's input
    classes: Tensor  # (B, Q, C + 1) float32 logits; the last one is "no object"


class San(SegmentationNetwork):
    """SAN, as described in the module docstring.

    Args:
        clip: the frozen image encoder.
        text: (C, E) float32 unit vectors, the embeddings of the class names.
        logit_scale: logarithm of the factor on cosines.
        facts: description to rebuild CLIP without its weights: ``digest``, ``config``.
        side: shorter side to which images are resized, in pixels.
    """

    text: Tensor
    logit_scale: Tensor

    def __init__(
        self,
        clip: ClipTower,
        text: Tensor,
        *,
        logit_scale: float,
        facts: Mapping[str, Any],
        shape: AdapterShape | None = None,
        side: int = SIDE,
    ) -> None:
        super().__init__()
        shape = shape or AdapterShape()
        self.clip = clip
        self.adapter = SideAdapter(clip.width, clip.heads, shape)
        width = text.shape[1]
        self.background = nn.Parameter(torch.randn(width) * width**-0.5)
        self.register_buffer("text", text)
        self.register_buffer("logit_scale", torch.tensor(float(logit_scale)))
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.side = side
        self.weights_report = WeightsReport("none", 0, len(self.state_dict()))
        self.description = {
            "network": NAME,
            "encoder": "clip",
            "classes": len(text),
            "clip": dict(facts),
            "adapter": asdict(shape) | {"supervised": list(shape.supervised)},
            "side": side,
        }

    def train(self, mode: bool = True) -> San:
        """Set the mode of the adapter; CLIP stays in evaluation mode."""
        super().train(mode)
        self.clip.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or float in [0, 1] → (B, C, H, W) float32 log-scores."""
        found = self.propose(image)[-1]
        probability = found.classes.softmax(-1)[..., :-1]
        size = (image.shape[-2], image.shape[-1])
        scores = probability.new_zeros(len(image), probability.shape[2], *size)
        for masks, classes in zip(
            torch.split(found.masks, _AT_ONCE, 1),
            torch.split(probability, _AT_ONCE, 1),
            strict=True,
        ):
            enlarged = F.interpolate(masks, size=size, mode="bilinear", align_corners=False)
            scores = scores + torch.einsum("bqc,bqhw->bchw", classes, enlarged.sigmoid())
        return scores.clamp(min=_LEAST).log()

    def propose(self, image: Tensor) -> list[QueryOutput]:
        """Masks and classes of every query; in training, at every supervised depth.

        Args:
            image: (B, 3, H, W) uint8, or float in [0, 1].
        """
        normed = self.normalised(image)
        grid, clip_grid = self._grids(image.shape[-2], image.shape[-1])
        patch = self.adapter.shape.patch
        pixels = _resized(normed, (grid[0] * patch, grid[1] * patch))
        small = _resized(pixels, (clip_grid[0] * self.clip.patch, clip_grid[1] * self.clip.patch))
        tokens, size = self.clip.first_part(small)
        last, fused = self.clip.split, self.adapter.shape.fused
        maps = [
            torch.unflatten(tokens[last * k // (fused - 1)][:, 1:].transpose(1, 2), 2, size)
            for k in range(fused)
        ]
        proposed = self.adapter(pixels, maps)
        seen = self.clip.recognise(tokens[-1], [pooled(output.bias, size) for output in proposed])
        names = torch.cat([self.text, F.normalize(self.background, dim=0)[None]])
        return [
            QueryOutput(
                output.masks.float(), (embedding @ names.T).float() * self.logit_scale.exp()
            )
            for output, embedding in zip(proposed, seen, strict=True)
        ]

    def _grids(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Number of patches (rows, columns) of the adapter and of CLIP."""
        patch, factor = self.adapter.shape.patch, self.side / min(height, width)
        share = 0.7 if self.clip.patch == 14 else 0.5

        def whole(length: float, of: int) -> int:
            return max(2, round(length / of))

        rows, columns = whole(height * factor, patch), whole(width * factor, patch)
        return (rows, columns), (
            whole(rows * patch * share, self.clip.patch),
            whole(columns * patch * share, self.clip.patch),
        )


def pooled(bias: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, heads, Q, h, w) → (B, heads, Q, N): the maximum within each patch of CLIP."""
    smaller = F.adaptive_max_pool2d(bias.flatten(1, 2), size)
    return torch.unflatten(smaller.flatten(2), 1, bias.shape[1:3])


def san(
    weights: str,
    taxonomy: Taxonomy,
    *,
    adapter: str | None = None,
    side: int = SIDE,
) -> San:
    """Build SAN on pretrained CLIP.

    Args:
        weights: a folder or hub id of CLIP, with its tokenizer.
        adapter: the authors' checkpoint; None initialises the adapter at random.
        side: shorter side to which images are resized, in pixels.

    Raises:
        UserError, MissingFileError: if weights are missing or do not fit.
    """
    folder = pretrained_folder(weights, KINDS, processor=False, patterns=PATTERNS)
    model = load_pretrained(folder, "CLIPModel")
    split = first_layers(model.config.vision_config.num_hidden_layers)
    facts = {
        "digest": digest(folder),
        "config": json.loads(model.config.vision_config.to_json_string(use_diff=False)),
        "projection": model.config.projection_dim,
    }
    network = San(
        ClipTower(model.vision_model, model.visual_projection, split=split),
        text_embeddings(model, folder, taxonomy.names),
        logit_scale=float(model.logit_scale),
        facts=facts,
        side=side,
    )
    source = f"CLIP {Path(weights).name} ({facts['digest']})"
    if adapter is None:
        count = len(network.clip.state_dict())
        network.weights_report = AdapterReport(
            f"{source}; side adapter at random", count, len(network.state_dict())
        )
    else:
        report = load_san(network, Path(adapter), split=split)
        network.weights_report = replace(report, source=f"{source}; side adapter {report.source}")
    return network


def rebuilt_san(description: Mapping[str, Any]) -> San:
    """Build SAN from a checkpoint's description, without its weights and text embeddings.

    Raises:
        UserError: if transformers is not installed.
        KeyError: if the description is damaged.
    """
    transformers = needed("transformers", extra="sam")
    facts = description["clip"]
    config = transformers.CLIPVisionConfig.from_dict(
        facts["config"] | {"projection_dim": facts["projection"]}
    )
    model = transformers.CLIPVisionModelWithProjection(config)
    adapter = description["adapter"]
    return San(
        ClipTower(
            model.vision_model,
            model.visual_projection,
            split=first_layers(config.num_hidden_layers),
        ),
        torch.zeros(description["classes"], facts["projection"]),
        logit_scale=0.0,
        facts=facts,
        shape=AdapterShape(**(adapter | {"supervised": tuple(adapter["supervised"])})),
        side=description["side"],
    )


def first_layers(depth: int) -> int:
    """Number of CLIP's layers before those that recognise: 9 of 12, 18 of 24."""
    return depth * 3 // 4


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
