"""A linear decoder: batch normalisation and one 1×1 convolution on the last feature map.

This is how DINOv2 is probed on segmentation (Oquab et al., TMLR 2024, "linear"): what the encoder
knows, with about one parameter for each channel and class. With a frozen encoder it is the fastest
thing to train, and borders are as coarse as the patches.
"""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn

from s5mars.models.segmenter import EncoderOptions, Segmenter


class Linear(Segmenter):
    """Encoder, batch normalisation, linear classifier.

    Arguments as for ``Segmenter``, and ``representation``: number of channels of a second head that
    embeds patches; 0 omits it.
    """

    NAME = "linear"
    LEVELS = 1
    DECODER = ("decoder",)

    def __init__(
        self,
        encoder: str,
        classes: int,
        *,
        representation: int = 0,
        **options: Unpack[EncoderOptions],
    ) -> None:
        super().__init__(encoder, classes, **options)
        (channels,) = self.layout.channels
        self.decoder = nn.BatchNorm2d(channels)
        self.classifier = nn.Conv2d(channels, classes, 1)
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
