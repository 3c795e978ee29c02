"""AugIN: exchange of channel statistics between images of one batch, eq. 5."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

Swap = Literal["std", "mean", "both", "none"]

EPSILON = 1e-5
"""Added to a standard deviation before it divides; images are in [0, 1]."""


def moments(image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over the valid pixels.

    Args:
        image: (B, C, H, W) float.
        valid: (B, H, W) bool.

    Returns:
        Two tensors (B, C, 1, 1). An image without valid pixels has mean 0 and deviation 0.
    """
    weight = valid.unsqueeze(1).to(image.dtype)
    count = weight.sum((2, 3), keepdim=True).clamp(min=1)
    mean = (image * weight).sum((2, 3), keepdim=True) / count
    variance = ((image - mean).square_().mul_(weight)).sum((2, 3), keepdim=True) / count
    return mean, variance.sqrt()


def augin(image: Tensor, valid: Tensor, *, partner: Tensor, swap: Swap = "std") -> Tensor:
    """Give every image the statistics of its partner, eq. 5.

    AugIN(u_i, u_j) = σ(u_j) · (u_i − μ(u_i)) / (σ(u_i) + ε) + μ(u_j), per channel, over the valid
    pixels. With ``swap="std"`` (AugIN-σ, the best row of table VII) the image keeps its own mean,
    with ``"mean"`` (AugIN-μ) its own deviation. The statistics of the whole batch do not change
    when ``partner`` is a permutation. The result is not clipped.

    Args:
        image: (B, C, H, W) float.
        valid: (B, H, W) bool; padding and no-data do not count.
        partner: (B,) int64 index j for each i.
        swap: ``std``, ``mean``, ``both`` or ``none``.
    """
    if swap not in get_args(Swap):
        raise ValueError(f"unknown swap {swap!r}; choose {', '.join(get_args(Swap))}")
    if swap == "none":
        return image
    mean, std = moments(image, valid)
    target_mean = mean if swap == "std" else mean[partner]
    target_std = std if swap == "mean" else std[partner]
    # A flat image has no contrast to rescale, and an empty partner none to give.
    flat = (std < EPSILON) | (target_std < EPSILON)
    gain = torch.where(flat, torch.ones_like(std), target_std / (std + EPSILON))
    return torch.addcmul(target_mean - mean * gain, image, gain)


def partners(size: int, generator: np.random.Generator) -> Tensor:
    """A random permutation of a batch as an (B,) int64 index."""
    return torch.from_numpy(generator.permutation(size))


def others(size: int, generator: np.random.Generator) -> Tensor:
    """A random permutation as an (B,) int64 index in which nobody is its own partner, if B > 1."""
    circle = partners(size, generator)
    return torch.empty_like(circle).scatter(0, circle, circle.roll(1))
