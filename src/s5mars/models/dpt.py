"""The dense prediction transformer's decoder (Ranftl et al., "Vision Transformers for Dense
Prediction", ICCV 2021) over four levels of an encoder.

1. *Reassemble* (section 3): each level of a ViT, all of one stride, gets a 1×1 convolution and is
   resampled to one scale of a pyramid: ×4, ×2 (transposed convolutions), ×1, ×1/2 (a strided
   convolution). The read operation is "ignore": class and register tokens are not used. The levels
   of an encoder that is a pyramid already go on as they are.
2. *Fusion*: 3×3 convolutions bring all levels to one width; from coarse to fine, two residual
   convolution units refine the sum of a level and what came from below, which is then enlarged to
   the size of the next level, and at the end by 2.
3. A 3×3 convolution, ReLU, and a 1×1 convolution to the classes, enlarged to the image.

The sizes are those of Depth Anything and UniMatch V2: for the widths 384, 768, 1024 and 1536 of
DINOv2 the decoder has 64, 128, 256 and 384 channels, 2.7 M parameters for the smallest. There is
no batch normalisation, as there. Enlarging is bilinear without aligned corners, as everywhere in
this project; theirs aligns them.
"""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn

from s5mars.models.segmenter import EncoderOptions, Segmenter
from s5mars.models.upsample import upsample

_LEVELS = 4


class Dpt(Segmenter):
    """Encoder, reassembly, fusion.

    Arguments as for ``Segmenter``, and ``representation``: number of channels of a second head that
    embeds pixels; 0 omits it.
    """

    NAME = "DPT"
    LEVELS = _LEVELS
    DECODER = ("reassemble", "narrow", "fusion", "decoder")

    def __init__(
        self,
        encoder: str,
        classes: int,
        *,
        representation: int = 0,
        **options: Unpack[EncoderOptions],
    ) -> None:
        super().__init__(encoder, classes, **options)
        given = self.layout.channels
        width = decoder_width(given[2])
        if self.layout.columnar:
            channels = level_channels(given[0])
            self.reassemble = nn.ModuleList(
                nn.Sequential(nn.Conv2d(tokens, out, 1), _resampled(out, level))
                for level, (tokens, out) in enumerate(zip(given, channels, strict=True))
            )
        else:
            channels = given
            self.reassemble = nn.ModuleList(nn.Identity() for _ in given)
        self.narrow = nn.ModuleList(nn.Conv2d(c, width, 3, padding=1, bias=False) for c in channels)
        # The coarsest level has nothing below it to refine.
        self.fusion = nn.ModuleList(
            _Fusion(width, joins=level < _LEVELS - 1) for level in range(_LEVELS)
        )
        self.decoder = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True))
        self.classifier = nn.Conv2d(width, classes, 1)
        if representation:
            # The fused map has twice the resolution that embeddings of DeepLabV3+ have.
            self.representation = nn.Sequential(
                nn.Conv2d(width, width, 3, stride=2, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, representation, 1),
            )
        self.description |= {"head": "dpt", "decoder_channels": width}

    def fuse(self, *features: Tensor) -> Tensor:
        """Four levels → (B, D, h, w) at twice the size of the finest reassembled level."""
        levels = [
            narrow(reassemble(x))
            for reassemble, narrow, x in zip(self.reassemble, self.narrow, features, strict=True)
        ]
        sizes = [(x.shape[-2], x.shape[-1]) for x in levels]
        sizes.insert(0, (2 * sizes[0][0], 2 * sizes[0][1]))
        fused: Tensor | None = None
        for level in reversed(range(_LEVELS)):
            fused = self.fusion[level](levels[level], fused, sizes[level])
        assert fused is not None
        return fused


def decoder_width(width: int) -> int:
    """Channels of the decoder for the width of a ViT, or of a pyramid at stride 16."""
    limits = {768: 64, 1024: 128, 1536: 256}
    return next((channels for limit, channels in limits.items() if width < limit), 384)


def level_channels(width: int) -> tuple[int, ...]:
    """Channels of the four reassembled levels for the width of a ViT."""
    shares = (8, 4, 2, 1) if width < 1024 else (4, 2, 1, 1) if width < 1536 else (1, 1, 1, 1)
    return tuple(max(1, width // share) for share in shares)


def _resampled(channels: int, level: int) -> nn.Module:
    if level == 2:
        return nn.Identity()
    if level == 3:
        return nn.Conv2d(channels, channels, 3, stride=2, padding=1)
    factor = 4 if level == 0 else 2
    return nn.ConvTranspose2d(channels, channels, factor, stride=factor)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → the same shape."""
        changed: Tensor = self.layers(x)
        return x + changed


class _Fusion(nn.Module):
    """Join a level with what came from the coarser one, refine, enlarge, project."""

    def __init__(self, channels: int, *, joins: bool) -> None:
        super().__init__()
        self.join = _Residual(channels) if joins else None
        self.refine = _Residual(channels)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, level: Tensor, below: Tensor | None, size: tuple[int, int]) -> Tensor:
        """(B, C, h, w) of a level and of the coarser one → (B, C, H, W)."""
        x = level if self.join is None or below is None else below + self.join(level)
        # A 1×1 convolution and bilinear enlarging commute: before it is four times cheaper.
        projected: Tensor = self.project(self.refine(x))
        return upsample(projected, size, training=self.training)
