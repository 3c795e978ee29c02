"""A stand-in network whose answer is known: the brightness of a pixel says its class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s5mars.classes import Class, Taxonomy

THREE = Taxonomy(
    "three",
    (
        Class("dark", (200, 0, 0)),
        Class("middle", (0, 200, 0)),
        Class("bright", (0, 0, 200)),
    ),
)


class Brightness(nn.Module):
    """Class 0 below about 64 grey levels, class 1 around 128, class 2 above about 192."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.tensor([0.0, 0.5, 1.0]))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.shapes.append(tuple(image.shape))
        grey = image.float().mean(1, keepdim=True) / 255
        return -30 * (grey - self.centres[None, :, None, None]) ** 2


class Convolutions(nn.Module):
    """A few random convolutions with a wide view: tiles do matter to it."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 7, padding=3, stride=2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=4, dilation=4),
            nn.ReLU(),
            nn.Conv2d(16, classes, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        small = self.layers(image.float() / 255 if image.dtype == torch.uint8 else image)
        return nn.functional.interpolate(
            10 * small, image.shape[2:], mode="bilinear", align_corners=False
        )
