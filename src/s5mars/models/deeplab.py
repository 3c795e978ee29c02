"""DeepLabV3+ (Chen et al., ECCV 2018) over any timm encoder.

With ``resnet50`` and the ``paper`` head this is the network of the S5Mars paper. Its table XIII
reports 40.47 M parameters for 9 classes; here it has 40.35 M. The released network replaces the 7×7
stem by three 3×3 convolutions that end in 128 channels, which adds 0.12 M parameters: use the
encoder ``resnet50s`` for that architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from s5mars.errors import UserError, require_choice
from s5mars.models.depthwise import with_fast_dilation
from s5mars.models.dropout import ChannelDropout
from s5mars.models.segmenter import EncoderOptions, Segmenter
from s5mars.models.upsample import upsample


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


class DeepLabV3Plus(Segmenter):
    """Encoder, atrous spatial pyramid, one skip connection at stride 4.

    The skip connection of a ViT is its first level, brought to stride 4 after its 1×1 convolution.

    Args:
        encoder, classes, options: see ``Segmenter``; the paper's output stride is 16.
        head: ``paper``, ``light``, or ``auto``: paper for encoders with 1024 output channels or
            more, light for others.
        multi_grid: dilation of the blocks of the last stage, as factors on that of the stage;
            ResNets only.
        representation: number of channels of a second head that embeds every pixel, for methods
            that compare pixels (U²PL: 256); 0 omits it.
    """

    NAME = "DeepLabV3+"
    LEVELS = 2
    DECODER = ("pyramid", "low_level", "decoder")

    def __init__(
        self,
        encoder: str,
        classes: int,
        *,
        head: str = "auto",
        multi_grid: Sequence[int] | None = None,
        representation: int = 0,
        **options: Unpack[EncoderOptions],
    ) -> None:
        super().__init__(encoder, classes, **options)
        low, high = self.layout.channels
        if multi_grid:
            _apply_multi_grid(self.encoder, encoder, multi_grid)
        if head == "auto":
            head = "paper" if high >= 1024 else "light"
        require_choice(head, ("auto", *HEADS), name="--deeplab.decoder")
        shape = HEADS[head]
        rates = tuple(rate * 16 // self.layout.strides[-1] for rate in (6, 12, 18))
        self.pyramid = SpatialPyramid(high, rates, shape)
        self.low_level = Conv2dNormActivation(low, shape.low_level_channels, 1)
        joined = shape.pyramid_channels + shape.low_level_channels
        self.decoder = nn.Sequential(*_refining(joined, shape))
        self.classifier = nn.Conv2d(shape.decoder_channels, classes, 1)
        if representation:
            self.representation = nn.Sequential(
                *_refining(joined, shape), nn.Conv2d(shape.decoder_channels, representation, 1)
            )
        with_fast_dilation(self)
        self.description |= {
            "head": head,
            "head_shape": asdict(shape),
            "multi_grid": list(multi_grid) if multi_grid else None,
        }

    def fuse(self, *features: Tensor) -> Tensor:
        """Features → (B, C, H/4, W/4): pyramid and skip connection, concatenated."""
        low, high = features
        height, width = low.shape[-2:]
        low = self.low_level(low)
        stride = self.layout.strides[0]
        if stride != 4:
            height, width = height * stride // 4, width * stride // 4
            low = upsample(low, (height, width), training=self.training)
        high = upsample(self.pyramid(high), (height, width), training=self.training)
        return torch.cat([high, low], dim=1)


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


def _refining(inputs: int, shape: Head) -> list[nn.Module]:
    """The two convolutions that each head has of its own."""
    width = shape.decoder_channels
    return [_conv3x3(channels, width, separable=shape.separable) for channels in (inputs, width)]


def _conv3x3(inputs: int, outputs: int, *, dilation: int = 1, separable: bool) -> nn.Module:
    if not separable:
        full: nn.Module = Conv2dNormActivation(inputs, outputs, 3, dilation=dilation)
        return full
    depthwise = nn.Conv2d(
        inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False
    )
    return nn.Sequential(depthwise, Conv2dNormActivation(inputs, outputs, 1))


def _apply_multi_grid(encoder: nn.Module, name: str, factors: Sequence[int]) -> None:
    blocks = getattr(encoder, "layer4", None)
    if blocks is None or len(blocks) != len(factors):
        raise UserError(
            f"--deeplab.multi-grid {list(factors)} needs a ResNet with {len(factors)} blocks in "
            f"its last stage; {name} has {'none' if blocks is None else len(blocks)}"
        )
    # timm's first block keeps the dilation of the stage before it.
    of_last = blocks[-1].conv2.dilation[0]
    for block, factor in zip(blocks, factors, strict=True):
        dilation = of_last * factor
        block.conv2.dilation = block.conv2.padding = (dilation, dilation)
