"""SAM-CLS of table VI: SAM's image encoder, frozen, and a light decoder that is trained.

The paper says: "the pretrained image encoder is fixed", and a "classification decoder" maps its
output to a label for every pixel. It does not specify SAM variant, decoder or image size. Here:

- any SAM or SAM-HQ of transformers; the decoder reads the encoder's last output (after the neck),
  at stride 16 of SAM's input: 256 × 64 × 64 for 1024² with the published weights;
- images are prepared as by SAM's processor: the longer side is resized to the input's side, with
  padding below and to the right. Floats are resized, not rounded bytes, which differs by less than
  one grey level;
- the decoder is two 3×3 convolutions with group normalisation and bilinear upsampling by 2 after
  each, then a 1×1 convolution: about 0.9 M parameters;
- features are computed in float32, one image at a time, and rounded to half precision, so that they
  depend neither on the batch nor on the cache.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5mars.errors import needed
from s5mars.models.feature_cache import DTYPE, FeatureCache
from s5mars.models.network import SegmentationNetwork
from s5mars.models.pretrained import digest, pretrained_folder
from s5mars.models.sam_weights import FAMILIES, family, input_side, load_sam
from s5mars.models.upsample import upsample
from s5mars.models.weights import WeightsReport

NAME = "SAM-CLS"
USABLE = {"sam": "SamVision", "sam_hq": "SamHQVision"}
"""``model_type`` → prefix of the encoder's classes. SAM 2 has another encoder and is not in the
table."""

_GROUPS = 32


class SamCls(SegmentationNetwork):
    """A frozen encoder and a trained decoder.

    Args:
        encoder: SAM's image encoder, (B, 3, side, side) → (B, D, h, w) as its first output.
        facts: description to rebuild the encoder without its weights.
        cache: cache of features; may be set later, and is not part of a checkpoint.
    """

    def __init__(
        self,
        encoder: nn.Module,
        classes: int,
        *,
        facts: Mapping[str, Any],
        report: WeightsReport,
        cache: FeatureCache | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        channels = int(facts["config"]["output_channels"])
        self.side = int(facts["side"])
        self.decoder = nn.Sequential(_Stage(channels, channels), _Stage(channels, channels // 2))
        self.classifier = nn.Conv2d(channels // 2, classes, 1)
        self.register_buffer("mean", torch.tensor(facts["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(facts["std"]).view(1, 3, 1, 1))
        self.weights_report = report
        self.cache = cache
        self.description = {
            "network": NAME,
            "encoder": facts["family"],
            "classes": classes,
            "sam": dict(facts),
        }
        self.eval()

    def train(self, mode: bool = True) -> SamCls:
        """Set the mode of the decoder; the encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or float in [0, 1] → (B, C, H, W) float32 logits."""
        features = self.features(image)
        logits = self.classifier(self.decoder(features)).float()
        height, width = image.shape[-2:]
        # The last cell of the shorter side may lie partly in the padding.
        cell = max(height, width) / max(features.shape[-2:])
        rows, columns = (round(cells * cell) for cells in features.shape[-2:])
        size = (max(rows, height), max(columns, width))
        return upsample(logits, size, training=self.training)[..., :height, :width]

    @torch.no_grad()
    def features(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, D, h, w) float32, without the padding; cached for uint8."""
        found = [self._cached(single) for single in image]
        return torch.stack(found).to(image.device, torch.float32)

    def _cached(self, image: Tensor) -> Tensor:
        if self.cache is None or image.dtype != torch.uint8:
            return self._encode(image)
        return self.cache.features(image, lambda: [self._encode(image)])[0]

    def _encode(self, image: Tensor) -> Tensor:
        """(3, H, W) → (D, h, w) in half precision."""
        pixels = image.to(self.mean.dtype)[None]
        if image.dtype == torch.uint8:
            pixels = pixels / 255
        height, width = image.shape[-2:]
        factor = self.side / max(height, width)
        inside = [max(1, int(length * factor + 0.5)) for length in (height, width)]
        pixels = F.interpolate(
            pixels, size=inside, mode="bilinear", align_corners=False, antialias=True
        )
        pixels = (pixels - self.mean) / self.std
        pixels = F.pad(pixels, (0, self.side - inside[1], 0, self.side - inside[0]))
        with torch.autocast(image.device.type, enabled=False):
            whole: Tensor = self.encoder(pixels)[0][0]
        rows, columns = (
            max(1, math.ceil(length * cells / self.side))
            for length, cells in zip(inside, whole.shape[-2:], strict=True)
        )
        return whole[:, :rows, :columns].to(DTYPE)


class _Stage(nn.Sequential):
    """3×3 convolution, group normalisation, ReLU, bilinear upsampling by 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.GroupNorm(math.gcd(_GROUPS, outputs), outputs),
            nn.ReLU(inplace=True),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        )


def sam_cls(weights: str, classes: int, *, cache: Path | None = None) -> SamCls:
    """Build SAM-CLS on a folder or hub id of SAM or SAM-HQ, with an untrained decoder.

    Raises:
        UserError, MissingFileError: if the weights are missing or do not fit.
    """
    folder = pretrained_folder(weights, list(USABLE))
    model, processor = load_sam(folder)
    kind, found = family(folder), digest(folder)
    encoder = model.vision_encoder
    facts = {
        "family": kind,
        "digest": found,
        "side": input_side(processor),
        "mean": list(processor.image_mean),
        "std": list(processor.image_std),
        "config": json.loads(model.config.vision_config.to_json_string(use_diff=False)),
    }
    count = len(encoder.state_dict())
    report = WeightsReport(f"{FAMILIES[kind]} {Path(weights).name} ({found})", count, count)
    features = None if cache is None else FeatureCache(cache, _digest(facts))
    return SamCls(encoder, classes, facts=facts, report=report, cache=features)


def _digest(facts: Mapping[str, Any]) -> str:
    """What features depend on: the weights, and how images are prepared for them."""
    prepared = [facts[name] for name in ("digest", "side", "mean", "std")]
    return hashlib.sha256(repr(prepared).encode()).hexdigest()[:16]


def rebuilt_sam_cls(description: Mapping[str, Any]) -> SamCls:
    """Build SAM-CLS from a checkpoint's description, without its weights.

    Raises:
        UserError: if transformers is not installed.
        KeyError: if the description is damaged.
    """
    transformers = needed("transformers", extra="sam")
    facts = description["sam"]
    stem = USABLE[facts["family"]]
    config = getattr(transformers, f"{stem}Config").from_dict(facts["config"])
    encoder = getattr(transformers, f"{stem}Model")(config).vision_encoder
    report = WeightsReport("of the checkpoint", 0, len(encoder.state_dict()))
    return SamCls(encoder, description["classes"], facts=facts, report=report)
