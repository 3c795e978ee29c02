"""Interface of networks for methods that perturb or compare features."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


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
