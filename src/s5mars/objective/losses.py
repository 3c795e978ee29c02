"""Loss terms over pixels that may be ignored. Every function names its divisor.

``over`` is one of

- ``valid``: the pixels that are neither padding nor no-data. Without padding this is the H×W of
  equations 3 and 6;
- ``all``: every pixel of the tensor, as in the released code's hard loss;
- ``kept``: the pixels that enter the sum, as in FixMatch implementations that skip the rest.

Pixels are counted over all processes of a run. Gradients are averaged over the processes, so each
returns its own part of the sum, times the number of processes, over the common divisor: the mean of
the returned values and of the gradients is that of the whole batch.

Another divisor makes another objective, whose weight depends on the share of kept pixels. A sum
over no pixels is zero and has a zero gradient.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from s5mars.classes import IGNORE
from s5mars.objective.pixel_losses import pixel_cross_entropies, pixel_cross_entropy
from s5mars.parallel import distributed

Over = Literal["valid", "all", "kept"]


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled pixels, L_sup of eq. 1.

    Args:
        logits: (B, C, H, W) float.
        label: (B, H, W) integer class index or IGNORE.

    Returns:
        A scalar; 0 with a zero gradient when no pixel is labelled.
    """
    kept = label != IGNORE
    return masked_mean(pixel_cross_entropy(logits, label), kept, kept, over="kept")


def ohem_cross_entropy(
    logits: Tensor, label: Tensor, *, threshold: float = 0.7, minimum_kept: int = 100_000
) -> Tensor:
    """Cross-entropy over hard pixels only: online hard example mining, as in the released code.

    A labelled pixel is kept where the probability of its true class is at most ``threshold``, or
    where it is among the ``minimum_kept`` least likely ones of all processes, whichever keeps more.

    Args:
        logits: (B, C, H, W) float.
        label: (B, H, W) integer class index or IGNORE.
    """
    loss = pixel_cross_entropy(logits, label)
    labelled = label != IGNORE
    probability = torch.exp(-loss.detach()).masked_fill(~labelled, torch.inf)
    everywhere = distributed.joined(probability.flatten())
    least_likely = everywhere.kthvalue(min(minimum_kept, everywhere.numel())).values
    kept = labelled & (probability <= torch.clamp(least_likely, min=threshold))
    return masked_mean(loss, kept, labelled, over="kept")


def hard_loss(logits: Tensor, hard: Tensor, *, kept: Tensor, valid: Tensor, over: Over) -> Tensor:
    """Cross-entropy with one-hot pseudo-labels, eq. 3.

    Args:
        logits: (B, C, H, W) float, the student's.
        hard: (B, H, W) int64 class index.
        kept: (B, H, W) bool, the pixels that enter the sum.
        valid: (B, H, W) bool, see ``over``.
        over: the divisor, see the module docstring.
    """
    return masked_mean(pixel_cross_entropy(logits, hard), kept, valid, over=over)


def hard_and_soft_loss(
    logits: Tensor,
    hard: Tensor,
    probability: Tensor,
    *,
    kept: tuple[Tensor, Tensor],
    valid: Tensor,
    over: tuple[Over, Over],
) -> tuple[Tensor, Tensor]:
    """Cross-entropy with one-hot pseudo-labels, eq. 3, and with the teacher's distribution, eq. 6.

    Args:
        logits: (B, C, H, W) float, the student's.
        hard: (B, H, W) int64 class index.
        probability: (B, C, H, W) float, the teacher's softmax output.
        kept: two (B, H, W) bool, the pixels that enter each sum.
        valid: (B, H, W) bool, see ``over``.
        over: the divisor of each, see the module docstring.
    """
    losses = pixel_cross_entropies(logits, hard, probability)
    hard_mean, soft_mean = (
        masked_mean(loss, mask, valid, over=divisor)
        for loss, mask, divisor in zip(losses, kept, over, strict=True)
    )
    return hard_mean, soft_mean


def pixels(mask: Tensor) -> Tensor:
    """Number of pixels of a (B, H, W) mask in all processes; a scalar, int64."""
    return distributed.total(mask.sum())


def masked_mean(loss: Tensor, kept: Tensor, valid: Tensor, *, over: Over) -> Tensor:
    """The sum of (B, H, W) losses over the kept pixels, divided as ``over`` says."""
    if over == "valid":
        divisor = pixels(valid)
    elif over == "all":
        divisor = torch.full_like(valid.sum(), valid.numel() * distributed.number())
    elif over == "kept":
        divisor = pixels(kept)
    else:
        raise ValueError(f"over must be one of {', '.join(get_args(Over))} (got {over!r})")
    return mean_of_all(loss.where(kept, 0).sum(), divisor)


def mean_of_all(summed: Tensor, divisor: Tensor) -> Tensor:
    """This process's part of a mean over all processes, see the module docstring.

    Args:
        summed: scalar, the sum in this process.
        divisor: scalar, the count in all processes; if it is 0, so is the mean.
    """
    return summed / divisor.where(divisor > 0, 1) * distributed.number()
