"""AugIN: exchange of channel statistics between images of one batch, eq. 5."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from s5mars.errors import UserError

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
        raise UserError(f"unknown swap {swap!r}; choose {', '.join(get_args(Swap))}")
    if swap == "none":
        return image
    mean, std = moments(image, valid)
    target_mean = mean if swap == "std" else mean[partner]
    target_std = std if swap == "mean" else std[partner]
    if swap != "std":  # an empty partner has no mean to give
        some = valid.flatten(1).any(1)[partner].view(-1, 1, 1, 1)
        target_mean = torch.where(some, target_mean, mean)
    # A flat image has no contrast to rescale, and an empty partner none to give.
    flat = (std < EPSILON) | (target_std < EPSILON)
    gain = torch.where(flat, torch.ones_like(std), target_std / (std + EPSILON))
    return torch.addcmul(target_mean - mean * gain, image, gain)


def partners(size: int) -> Tensor:
    """The other image for each of a batch, as an (B,) int64 index: neighbours, two by two.

    The images of a batch are drawn independently and in random order, so that a neighbour is as
    random as the image at a random place. The released code permutes the batch: there an image may
    be its own partner and stay as it is, at a probability of 1/B; here none is, if B > 1.

    A pair lies in one process whenever processes hold an even number of images, so that a run does
    not depend on their number. Of an odd number the last three form a circle.
    """
    index = torch.arange(size) ^ 1
    if size % 2:
        index[-3:] = torch.arange(size)[-3:].roll(-1)
    return index
