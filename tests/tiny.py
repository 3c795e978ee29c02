"""Tiny networks and batches for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from s5mars.classes import IGNORE
from s5mars.objective.losses import cross_entropy
from s5mars.objective.thresholds import above_threshold
from s5mars.randomness import Generators, generators
from s5mars.types import Batch, Crops, Progress, as_predicted


class PixelNet(nn.Module):
    """Logits from each pixel alone: quick, and no pixel can influence another."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, classes, 1)
        self.embedding = nn.Conv2d(classes, 8, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.features(image)[1]

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        image = image.float() / 255 if image.dtype == torch.uint8 else image
        return image, self.convolution(image) * 8

    def fuse(self, low: Tensor, high: Tensor) -> Tensor:
        return high

    def classify(self, fused: Tensor, *, size: tuple[int, int]) -> Tensor:
        return fused

    def represent(self, fused: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(fused)
        return embedded

    def decode(self, low: Tensor, high: Tensor, *, size: tuple[int, int]) -> Tensor:
        return self.classify(self.fuse(low, high), size=size)


def progress_at(*, step: int, total: int, seed: int = 0, **changes: Any) -> Progress:
    """Progress of a run in one process, with the settings of the papers."""
    settings = {
        "ramp": 1.0,
        "first": 0,
        "pool_from": 0,
        "criterion": cross_entropy,
        "pseudo_labels": as_predicted,
        "keep": above_threshold,
    }
    return Progress(seed=seed, step=step, total=total, **{**settings, **changes})


def rngs(seed: int, size: int) -> Generators:
    """A generator for each image of a batch."""
    return generators(seed, "test", samples=range(size))


def crops(
    *,
    seed: int,
    labelled: float = 0.5,
    valid: float = 1.0,
    objects: bool = True,
    batch: int = 3,
    size: int = 24,
    classes: int = 4,
) -> Crops:
    """A random stream: a share of the pixels labelled, a share of them valid."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    label = torch.randint(0, classes, (batch, size, size), generator=generator).to(torch.uint8)
    is_valid = uniform(batch, size, size) < valid
    label[(uniform(batch, size, size) >= labelled) | ~is_valid] = IGNORE
    region = torch.zeros(batch, size, size, dtype=torch.bool)
    region[:, size // 4 : -size // 4, size // 4 : -size // 4] = True
    return Crops(
        image=(uniform(batch, 3, size, size) * 255).to(torch.uint8),
        label=label,
        valid=is_valid,
        objects=region & is_valid if objects else None,
    )


def batch(*, seed: int = 0, pool_labelled: float = 0.2, valid: float = 0.9, **kwargs: int) -> Batch:
    """A labelled and a pool stream."""
    return Batch(
        labelled=crops(seed=2 * seed, valid=valid, **kwargs),
        pool=crops(seed=2 * seed + 1, labelled=pool_labelled, valid=valid, objects=False, **kwargs),
    )


def unlabelled_pool(given: Batch) -> Batch:
    """The same batch when the labels of the pool are withheld, as ``--pool-labels false`` does."""
    assert given.pool is not None
    label = torch.full_like(given.pool.label, IGNORE)
    return Batch(labelled=given.labelled, pool=replace(given.pool, label=label))
