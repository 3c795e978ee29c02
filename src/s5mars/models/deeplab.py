"""DeepLabV3+ (Chen et al., ECCV 2018) over any timm encoder.

With ``resnet50`` and the ``paper`` head this is the network of the S5Mars paper. Its table XIII
reports 40.47 M parameters for 9 classes; here it has 40.35 M. The released network replaces the 7×7
stem by three 3×3 convolutions that end in 128 channels, which adds 0.13 M parameters: use the
encoder ``resnet50s`` for that architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from s5mars.errors import UserError
from s5mars.models.depthwise import with_fast_dilation
from s5mars.models.dropout import ChannelDropout
from s5mars.models.upsample import upsample
from s5mars.models.weights import Report, load_encoder_weights, named_weights

RELEASED_MEAN = (0.625, 0.519, 0.363)
RELEASED_DIVISOR = (0.01803789, 0.01469946, 0.00991374)
"""Divisor of the released code: the variances of table II, not the standard deviations."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """Sizes of the decoder."""

    pyramid_channels: int = 256  # each branch of the spatial pyramid
    low_level_channels: int = 48
    decoder_channels: int = 256
    separable: bool = False  # depthwise-separable 3×3 convolutions, as in the DeepLabV3+ paper
    dropout: float = 0.1


HEADS = {
    "paper": Head(),
    "light": Head(
        pyramid_channels=128, low_level_channels=32, decoder_channels=128, separable=True
    ),
}
"""``paper``: full 3×3 convolutions (table XIII). ``light``: for small encoders."""


class DeepLabV3Plus(nn.Module):
    """Encoder, atrous spatial pyramid, one skip connection at stride 4.

    Args:
        encoder: timm name of an encoder that can return features, such as ``resnet50``.
        classes: number of output channels.
        output_stride: 8, 16 or 32; the paper uses 16.
        head: ``paper``, ``light``, or ``auto``: paper for encoders with 1024 output channels or
            more, light for others.
        weights: see ``s5mars.models.weights``.
        normalisation: ``encoder`` (the statistics of its pretraining) or
            ``as_released`` (the divisor of the released S5Mars code, a variance).
        multi_grid: dilation factors of the blocks of the last stage; ResNets only.
        representation: number of channels of a second head that embeds every pixel, for methods
            that compare pixels (U²PL: 256); 0 omits it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: str,
        classes: int,
        *,
        output_stride: int = 16,
        head: str = "auto",
        weights: str = "none",
        normalisation: str = "encoder",
        multi_grid: Sequence[int] | None = None,
        representation: int = 0,
    ) -> None:
        super().__init__()
        features, depth = _timm_features(encoder, output_stride=output_stride)
        low, high = (features.feature_info.channels()[i] for i in (0, -1))
        self.encoder: nn.Module = features
        self.weights_report: Report = load_encoder_weights(self.encoder, encoder, weights=weights)
        if multi_grid:
            _apply_multi_grid(self.encoder, encoder, multi_grid)
        if head == "auto":
            head = "paper" if high >= 1024 else "light"
        if head not in HEADS:
            raise UserError(
                f"--deeplab.decoder must be one of auto, {', '.join(HEADS)} (got {head!r})"
            )
        shape = HEADS[head]
        rates = tuple(rate * 16 // output_stride for rate in (6, 12, 18))
        self.pyramid = SpatialPyramid(high, rates, shape)
        self.low_level = Conv2dNormActivation(low, shape.low_level_channels, 1)
        joined = shape.pyramid_channels + shape.low_level_channels
        self.decoder = nn.Sequential(
            _conv3x3(joined, shape.decoder_channels, separable=shape.separable),
            _conv3x3(shape.decoder_channels, shape.decoder_channels, separable=shape.separable),
        )
        self.classifier = nn.Conv2d(shape.decoder_channels, classes, 1)
        self.representation: nn.Module | None = None
        if representation:
            self.representation = nn.Sequential(
                _conv3x3(joined, shape.decoder_channels, separable=shape.separable),
                _conv3x3(shape.decoder_channels, shape.decoder_channels, separable=shape.separable),
                nn.Conv2d(shape.decoder_channels, representation, 1),
            )

        with_fast_dilation(self)

        mean, std = _statistics(named_weights(weights) or encoder, normalisation)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.description: dict[str, object] = {
            "network": "DeepLabV3+",
            "encoder": encoder,
            "output_stride": output_stride,
            "head": head,
            "head_shape": asdict(shape),
            "normalisation": normalisation,
            "multi_grid": list(multi_grid) if multi_grid else None,
            "classes": classes,
            "encoder_stages": depth,
        }

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or float in [0, 1] → (B, C, H, W) float32 logits."""
        low, high = self.features(image)
        return self.decode(low, high, size=(image.shape[-2], image.shape[-1]))

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Low-level (stride 4) and high-level (output stride) features of an image."""
        if image.dtype == torch.uint8:
            image = image.to(self.mean.dtype) / 255
        outputs = self.encoder((image - self.mean) / self.std)
        return outputs[0], outputs[-1]

    def fuse(self, low: Tensor, high: Tensor) -> Tensor:
        """Features → (B, C, H/4, W/4): pyramid and skip connection, concatenated."""
        size = (low.shape[-2], low.shape[-1])
        high = upsample(self.pyramid(high), size, training=self.training)
        return torch.cat([high, self.low_level(low)], dim=1)

    def classify(self, fused: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Fused features → float32 logits at ``size``."""
        # With few classes, a softmax over planes is faster than over channels-last memory.
        logits = self.classifier(self.decoder(fused)).float().contiguous()
        return upsample(logits, size, training=self.training)

    def represent(self, fused: Tensor) -> Tensor:
        """Fused features → (B, D, H/4, W/4) float32 embedding of every fourth pixel.

        Raises:
            UserError: if the network has no such head.
        """
        if self.representation is None:
            raise UserError("network has no representation head; build it with representation > 0")
        embedded: Tensor = self.representation(fused).float()
        return embedded

    def decode(self, low: Tensor, high: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Features → logits at ``size``."""
        return self.classify(self.fuse(low, high), size=size)


class SpatialPyramid(nn.Module):
    """Atrous spatial pyramid pooling: 1×1, three dilated 3×3, and image-level pooling."""

    def __init__(self, channels: int, rates: Sequence[int], shape: Head) -> None:
        super().__init__()
        out = shape.pyramid_channels
        self.branches = nn.ModuleList([Conv2dNormActivation(channels, out, 1)])
        for rate in rates:
            self.branches.append(_conv3x3(channels, out, dilation=rate, separable=shape.separable))
        self.pooled = Conv2dNormActivation(channels, out, 1)
        self.project = nn.Sequential(
            Conv2dNormActivation(out * (len(rates) + 2), out, 1), ChannelDropout(shape.dropout)
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) → (B, pyramid_channels, h, w)."""
        size = features.shape[-2:]
        pooled = self.pooled(F.adaptive_avg_pool2d(features, 1))
        outputs = [branch(features) for branch in self.branches]
        outputs.append(pooled.expand(-1, -1, *size))
        projected: Tensor = self.project(torch.cat(outputs, dim=1))
        return projected


def _conv3x3(inputs: int, outputs: int, *, dilation: int = 1, separable: bool) -> nn.Module:
    if not separable:
        full: nn.Module = Conv2dNormActivation(inputs, outputs, 3, dilation=dilation)
        return full
    depthwise = nn.Conv2d(
        inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False
    )
    return nn.Sequential(depthwise, Conv2dNormActivation(inputs, outputs, 1))


def _timm_features(name: str, *, output_stride: int) -> tuple[Any, int]:
    """Build a timm encoder that returns features at stride 4 and at the output stride."""
    if output_stride not in (8, 16, 32):
        raise UserError(f"--deeplab.output-stride must be 8, 16 or 32 (got {output_stride})")
    base, _, tag = name.partition(".")
    if base not in timm.list_models(base):
        import difflib

        near = difflib.get_close_matches(base, timm.list_models(), n=4, cutoff=0.0)
        raise UserError(f"--model {name} is not an encoder of timm; nearest: {', '.join(near)}")
    if tag and name not in (tagged := timm.list_pretrained(f"{base}.*")):
        raise UserError(
            f"--model {name}: timm has no such weights of {base}; available: {', '.join(tagged)}"
        )
    try:
        plain: Any = timm.create_model(base, features_only=True)
        reductions = plain.feature_info.reduction()
        low = reductions.index(4)
        encoder = timm.create_model(
            base,
            features_only=True,
            output_stride=output_stride,
            out_indices=(low, len(reductions) - 1),
        )
    except (ValueError, RuntimeError, TypeError, NotImplementedError, AssertionError) as error:
        raise UserError(
            f"--model {name} cannot return features at stride 4 and at output stride "
            f"{output_stride} ({error}); use a convolutional encoder such as resnet50, "
            "tf_efficientnet_lite0 or mobilenetv3_large_100"
        ) from error
    return encoder, len(reductions)


def _statistics(encoder: str, normalisation: str) -> tuple[Sequence[float], Sequence[float]]:
    if normalisation == "as_released":
        return RELEASED_MEAN, RELEASED_DIVISOR
    if normalisation != "encoder":
        raise UserError(
            f"--deeplab.normalisation must be encoder or as_released (got {normalisation!r})"
        )
    config = timm.get_pretrained_cfg(encoder, allow_unregistered=False)
    if config is None:
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return config.mean, config.std


def _apply_multi_grid(encoder: nn.Module, name: str, factors: Sequence[int]) -> None:
    blocks = getattr(encoder, "layer4", None)
    if blocks is None or len(blocks) != len(factors):
        raise UserError(
            f"--deeplab.multi-grid {list(factors)} needs a ResNet with {len(factors)} blocks in "
            f"its last stage; {name} has {'none' if blocks is None else len(blocks)}"
        )
    for block, factor in zip(blocks, factors, strict=True):
        convolution = block.conv2
        dilation = convolution.dilation[0] * factor
        convolution.dilation = convolution.padding = (dilation, dilation)
