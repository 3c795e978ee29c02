"""Interfaces of networks: for training and checkpoints, and for methods that use features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from s5mars.models.licences import Licence
    from s5mars.models.weights import Report


class SegmentationNetwork(nn.Module):
    """A network that can be trained, evaluated and shared.

    A subclass maps (B, 3, H, W) images, uint8 or float in [0, 1], to (B, C, H, W) float32 logits,
    and sets:

    - ``description``: what ``build.rebuild_network`` needs;
    - ``weights_report``: where its weights come from;
    - ``mean`` and ``std``: (1, 3, 1, 1) buffers, the normalisation of images in [0, 1].
    """

    description: dict[str, Any]
    weights_report: Report
    mean: Tensor
    std: Tensor
    licence: Licence | None  # of the weights that the encoder started from
    representation: nn.Module | None  # a second head, from fused features to an embedding of pixels

    def __init__(self) -> None:
        super().__init__()
        self.licence = None
        self.representation = None

    def normalised(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or float in [0, 1] → float, normalised by ``mean`` and ``std``."""
        if image.dtype == torch.uint8:
            image = image.to(self.mean.dtype) / 255
        return (image - self.mean) / self.std


class Network(Protocol):
    """A network whose encoder and decoder can be called separately.

    ``network(image)`` equals ``network.decode(*network.features(image), size=image.shape[-2:])``.
    """

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or float in [0, 1] → (B, C, H, W) float logits."""
        ...

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of an image, fine to coarse; their number is the decoder's."""
        ...

    def fuse(self, *features: Tensor) -> Tensor:
        """Features → common input of both heads."""
        ...

    def classify(self, fused: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Fused features → logits at ``size``."""
        ...

    def represent(self, fused: Tensor) -> Tensor:
        """Fused features → embedding, if ``Needs.representation`` requested this head."""
        ...

    def decode(self, *features: Tensor, size: tuple[int, int]) -> Tensor:
        """Features → logits at ``size``."""
        ...
