"""AugIN: exchange of channel statistics between images of one batch, eq. 5."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from s5mars.errors import require_choice

Swap = Literal["std", "mean", "both", "none"]

EPSILON = 1e-5
"""Added to a standard deviation in a divisor; images are in [0, 1]."""


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
        valid: (B, H, W) bool; padding and no-data do not count and do not change.
        partner: (B,) int64 index j for each i.
        swap: ``std``, ``mean``, ``both`` or ``none``.
    """
    require_choice(swap, get_args(Swap), name="swap")
    if swap == "none":
        return image
    mean, std = moments(image, valid)
    target_mean = mean if swap == "std" else mean[partner]
    target_std = std if swap == "mean" else std[partner]
    if swap != "std":  # an empty partner has no mean
        some = valid.flatten(1).any(1)[partner].view(-1, 1, 1, 1)
        target_mean = torch.where(some, target_mean, mean)
    # Neither a flat image nor an empty partner has a contrast.
    flat = (std < EPSILON) | (target_std < EPSILON)
    gain = torch.where(flat, torch.ones_like(std), target_std / (std + EPSILON))
    moved = torch.addcmul(target_mean - mean * gain, image, gain)
    return torch.where(valid.unsqueeze(1), moved, image)


def partners(size: int) -> Tensor:
    """The partner of each image of a batch, a (B,) int64 index: neighbours form pairs.

    The order of a batch is random, so a neighbour is a random partner. The released code permutes
    the batch, so that an image is its own partner with probability 1/B; here that never happens if
    B > 1.

    A pair lies in one process if processes hold an even number of images, so that a run does not
    depend on the number of processes. In an odd batch the last three form a cycle.
    """
    index = torch.arange(size) ^ 1
    if size % 2:
        index[-3:] = torch.arange(size)[-3:].roll(-1)
    return index
