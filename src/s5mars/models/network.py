"""What a method may ask of a network beyond logits: features, to disturb or to compare."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Network(Protocol):
    """An encoder and a decoder that can be called one after the other.

    ``network(image)`` equals ``network.decode(*network.features(image), size=image.shape[-2:])``.
    """

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or float in [0, 1] → (B, C, H, W) float logits."""
        ...

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Low-level and high-level features of an image."""
        ...

    def fuse(self, low: Tensor, high: Tensor) -> Tensor:
        """Features → what both heads read."""
        ...

    def classify(self, fused: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Fused features → logits at ``size``."""
        ...

    def represent(self, fused: Tensor) -> Tensor:
        """Fused features → an embedding, where ``Needs.representation`` asked for the head."""
        ...

    def decode(self, low: Tensor, high: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Features → logits at ``size``."""
        ...
