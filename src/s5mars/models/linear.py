"""A linear decoder: batch normalisation and one 1×1 convolution on the last feature map.

This is how DINOv2 is probed on segmentation (Oquab et al., TMLR 2024, "linear"): what the encoder
knows, with about one parameter for each channel and class. With a frozen encoder it is the fastest
thing to train, and borders are as coarse as the patches.
"""

from __future__ import annotations

from torch import Tensor, nn

from s5mars.models.segmenter import Segmenter


class Linear(Segmenter):
    """Encoder, batch normalisation, linear classifier.

    Args:
        encoder: timm name of an encoder, such as ``vit_small_patch14_dinov2``.
        classes: number of output channels.
        output_stride: see ``build_encoder``.
        weights: see ``s5mars.models.weights``.
        normalisation: see ``Segmenter``.
        representation: number of channels of a second head that embeds patches; 0 omits it.
        drop_path: see ``build_encoder``.
    """

    NAME = "linear"
    LEVELS = 1
    DECODER = ("decoder",)

    def __init__(
        self,
        encoder: str,
        classes: int,
        *,
        output_stride: int | None = None,
        weights: str = "none",
        normalisation: str = "encoder",
        representation: int = 0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(
            encoder,
            classes,
            output_stride=output_stride,
            weights=weights,
            normalisation=normalisation,
            drop_path=drop_path,
        )
        (channels,) = self.layout.channels
        self.decoder = nn.BatchNorm2d(channels)
        self.classifier = nn.Conv2d(channels, classes, 1)
        self.representation = None
        if representation:
            self.representation = nn.Sequential(
                nn.Conv2d(channels, representation, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(representation, representation, 1),
            )
        self.description |= {"head": "linear"}

    def fuse(self, *features: Tensor) -> Tensor:
        """The last feature map."""
        return features[0]
