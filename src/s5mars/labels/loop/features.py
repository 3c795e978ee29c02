"""Features of the frozen start model: computed once per image, kept on disk.

The features of an image are a pyramid of maps at the strides where the network makes them. They are
not brought to one size: a linear head commutes with interpolation, and the pyramid is small.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from s5mars.data.resolution import Resolution
from s5mars.devices import find_device
from s5mars.models.encoders import padded
from s5mars.models.feature_cache import FeatureFolder
from s5mars.models.opened import open_model
from s5mars.models.segmenter import Segmenter
from s5mars.models.weights import load_encoder_weights
from s5mars.predict.settings import model_hash

ENCODER = "tf_efficientnet_lite0"
"""The encoder without ``--start-from``: its ImageNet weights come with pip."""

LONGEST_SIDE = 1024
"""Larger images are reduced to this before the network sees them."""

SMALLEST_SIDE = 64

_FORMAT = 1
_WIDE = 64
"""Maps at stride 4 with more channels are kept at stride 8."""

Pyramid = list[Tensor]
"""Maps (C, h, w) float16 on the CPU, finest first."""


@dataclass(frozen=True)
class StartModel:
    """A frozen network that describes pixels."""

    name: str  # what it is, for the page
    key: str  # identifies its features on disk
    levels: Callable[[Tensor], list[Tensor]]  # (1, 3, H, W) uint8 → (1, C, h, w), finest first
    resolution: Resolution  # at which it sees images
    device: torch.device
    classes: tuple[str, ...] | None = None  # whose log-probabilities are the last map
    multiple: int = 1  # sides of the images that it reads are multiples of this
    encoder: str | None = None  # its timm encoder, from which `s5mars train` can start

    @torch.inference_mode()
    def pyramid(self, image: NDArray[np.uint8]) -> Pyramid:
        """The features of an image (H, W, 3) uint8: first its own colours, then the network's."""
        seen = self.resolution.resized(image)
        side = max(seen.shape[:2])
        if side > LONGEST_SIDE:
            seen = Resolution(side=LONGEST_SIDE).resized(seen)
        pixels = torch.from_numpy(np.array(seen)).permute(2, 0, 1)[None].to(self.device)
        height, width = pixels.shape[-2:]
        padding = [0, max(0, SMALLEST_SIDE - width), 0, max(0, SMALLEST_SIDE - height)]
        if any(padding):
            pixels = F.pad(pixels, padding)
        pixels = padded(pixels, self.multiple)  # so that maps cover the same area
        maps = [_colours(pixels), *self.levels(pixels)]
        kept = []
        for level in maps:
            rows = max(1, round(level.shape[-2] * height / pixels.shape[-2]))
            columns = max(1, round(level.shape[-1] * width / pixels.shape[-1]))
            kept.append(level[0, :, :rows, :columns].to("cpu", torch.float16).contiguous())
        return kept


def open_start_model(path: str | None, *, device: str) -> StartModel:
    """The model of ``--start-from``, or the ImageNet encoder.

    Args:
        path: whatever ``s5mars.load`` opens; None for the encoder that pip has installed. Of a
            network over a timm encoder the features before its classifier are used; of other models
            and ONNX files the class probabilities, together with the features of the ImageNet
            encoder.
        device: name of a device.

    Raises:
        UserError: if the model cannot be opened, or the device is not there.
    """
    where = find_device(device)
    if path is None:
        return StartModel(
            f"ImageNet encoder {ENCODER}",
            f"imagenet-{ENCODER}",
            _imagenet_levels(where),
            Resolution(),
            where,
        )
    loaded = open_model(path)
    network = loaded.model
    if isinstance(network, nn.Module):
        network.to(where).eval()
    multiple, encoder = 1, None
    if isinstance(network, Segmenter):
        encoder = str(network.description["encoder"])
        levels = _segmenter_levels(network)
        multiple = network.layout.multiple
    else:
        levels = _probability_levels(network, _imagenet_levels(where))
    return StartModel(
        os.fspath(path),
        f"model-{model_hash(network)}",
        levels,
        loaded.resolution,
        where,
        loaded.taxonomy.names,
        multiple,
        encoder,
    )


class PyramidCache(FeatureFolder):
    """A folder of pyramids, one file for each content of an image file and each start model."""

    def __init__(self, folder: Path, model: StartModel) -> None:
        super().__init__(folder / f"{model.key}-{_FORMAT}")


def _colours(pixels: Tensor) -> Tensor:
    """(1, 3, H, W) uint8 → (1, 5, H/4, W/4): colour, its local deviation, height in the image."""
    values = pixels.float() / 255
    mean = F.avg_pool2d(values, 4, ceil_mode=True)
    grey = values.mean(1, keepdim=True)
    square = F.avg_pool2d(grey**2, 4, ceil_mode=True)
    variance = square - mean.mean(1, keepdim=True) ** 2
    deviation = F.avg_pool2d(variance.clamp_min(0), 5, stride=1, padding=2).sqrt()
    rows = torch.linspace(-1, 1, mean.shape[-2], device=mean.device)
    place = rows[None, None, :, None].expand(1, 1, *mean.shape[-2:])
    return torch.cat([mean, deviation, place], 1)


def _imagenet_levels(device: torch.device) -> Callable[[Tensor], list[Tensor]]:
    encoder: Any = timm.create_model(ENCODER, features_only=True, out_indices=(1, 2, 3, 4))
    load_encoder_weights(encoder, ENCODER, weights="auto")
    encoder.to(device).eval()
    config = timm.get_pretrained_cfg(ENCODER)
    assert config is not None
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (config.mean, config.std))

    def levels(pixels: Tensor) -> list[Tensor]:
        maps: list[Tensor] = encoder((pixels.float() / 255 - mean) / std)
        return maps

    return levels


def _segmenter_levels(network: Segmenter) -> Callable[[Tensor], list[Tensor]]:
    def levels(pixels: Tensor) -> list[Tensor]:
        features = network.features(pixels)
        decoded = network.decoder(network.fuse(*features))
        logits = network.classifier(decoded).float().log_softmax(1)
        kept = (features[0], decoded)
        return [*(F.avg_pool2d(m, 2) if m.shape[1] > _WIDE else m for m in kept), logits]

    return levels


def _probability_levels(
    network: Callable[[Tensor], Tensor], encoder: Callable[[Tensor], list[Tensor]]
) -> Callable[[Tensor], list[Tensor]]:
    def levels(pixels: Tensor) -> list[Tensor]:
        logits = network(pixels).float().to(pixels.device).log_softmax(1)
        return [*encoder(pixels), F.avg_pool2d(logits, 4, ceil_mode=True)]

    return levels
