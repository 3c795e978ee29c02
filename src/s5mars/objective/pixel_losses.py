"""Cross-entropy at every pixel, with gradients that save memory.

Logits are among the largest tensors of a step, and the backward pass of PyTorch's losses allocates
several tensors of that size. The losses here share one log-softmax, and their gradient

    (g_hard + g_soft) · p_s − g_hard · onehot(label) − g_soft · p_t

is built in place in a single tensor.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from s5mars.classes import IGNORE


def pixel_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """(B, H, W) cross-entropy at every pixel, 0 where the label is IGNORE.

    Args:
        logits: (B, C, H, W) float.
        label: (B, H, W) integer class index or IGNORE.
    """
    loss: Tensor = _Hard.apply(logits, label.long())
    return loss


def pixel_cross_entropies(
    logits: Tensor, label: Tensor, probability: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy at every pixel with a class, and with a distribution, as targets.

    Args:
        logits: (B, C, H, W) float.
        label: (B, H, W) integer class index or IGNORE.
        probability: (B, C, H, W) float whose classes sum to 1; no gradient flows to it.

    Returns:
        Two (B, H, W) float; the first is 0 where the label is IGNORE.
    """
    hard, soft = _HardAndSoft.apply(logits, label.long(), probability.detach())
    return hard, soft


class _Hard(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor) -> Tensor:
        logarithm = _log_softmax(logits)
        ctx.save_for_backward(logarithm, label)
        return _of_label(logarithm, label)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        logarithm, label = ctx.saved_tensors
        known = label != IGNORE
        hard = gradients[0].where(known, 0).unsqueeze(1)
        return _minus_label(logarithm.exp().mul_(hard), hard, label.where(known, 0)), None


class _HardAndSoft(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, label: Tensor, probability: Tensor
    ) -> tuple[Tensor, Tensor]:
        logarithm = _log_softmax(logits)
        ctx.save_for_backward(logarithm, label, probability)
        return _of_label(logarithm, label), (probability * logarithm).sum(1).neg_()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        logarithm, label, probability = ctx.saved_tensors
        known = label != IGNORE
        hard = gradients[0].where(known, 0).unsqueeze(1)
        soft = gradients[1].unsqueeze(1)
        gradient = logarithm.exp().mul_(hard + soft).addcmul_(probability, soft, value=-1)
        return _minus_label(gradient, hard, label.where(known, 0)), None, None


def _log_softmax(logits: Tensor) -> Tensor:
    """Over the classes; half precision is summed in single."""
    return F.log_softmax(logits, dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _of_label(logarithm: Tensor, label: Tensor) -> Tensor:
    return F.nll_loss(logarithm, label, ignore_index=IGNORE, reduction="none")


def _minus_label(gradient: Tensor, hard: Tensor, label: Tensor) -> Tensor:
    return gradient.scatter_add_(1, label.unsqueeze(1), -hard)
