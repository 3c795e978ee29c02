"""Which pseudo-labels count: one threshold, or one a class that follows what has been learned.

Every method asks ``progress.keep(probability, valid, above=τ)``, so that each of these is open to
all of them:

- ``fixed``: confidence above τ, as in FixMatch;
- ``flexmatch``: τ_c = β_c / (2 − β_c) · τ, where β_c is how often class c is predicted above τ,
  divided by the largest such number, or by the number of unused pixels while that is larger
  (Zhang et al., NeurIPS 2021, eq. 5–7 and the warm-up of section 3.2);
- ``freematch``: τ_c = p̃_c / max p̃ · τ_t, where p̃ is the mean prediction and τ_t the mean
  confidence (Wang et al., ICLR 2023, eq. 5–8). It learns τ_t; the method's τ does not enter.

Both papers count images; here pixels are counted, of all processes, as running averages over the
steps. A method with τ ≤ 0 wants every pixel, and gets it under each rule.
"""

from __future__ import annotations

from typing import Protocol, get_args

import torch
from torch import Tensor, nn

from s5mars import processes
from s5mars.config import Thresholds


class Keep(Protocol):
    """A rule that says which pixels of a prediction are used as pseudo-labels."""

    def __call__(self, probability: Tensor, valid: Tensor, *, above: float) -> Tensor:
        """(B, C, H, W) probabilities, (B, H, W) bool, τ → (B, H, W) bool."""
        ...


def above_threshold(probability: Tensor, valid: Tensor, *, above: float) -> Tensor:
    """Valid pixels whose largest probability is above τ."""
    return valid & (probability.amax(1) > above)


class ClassThresholds(nn.Module):
    """Thresholds that differ by class; their running averages are a part of every checkpoint.

    Args:
        classes: number C of classes.
        kind: ``flexmatch`` or ``freematch``.
        momentum: of the averages, in [0, 1).

    Raises:
        ValueError: for an unknown kind.
    """

    shares: Tensor  # flexmatch: share of the pixels above τ, by class
    mean: Tensor  # freematch: p̃
    confidence: Tensor  # freematch: τ_t

    def __init__(self, classes: int, *, kind: Thresholds, momentum: float = 0.99) -> None:
        super().__init__()
        if kind not in get_args(Thresholds)[1:]:
            raise ValueError(f"unknown thresholds {kind!r}; choose flexmatch, freematch")
        self.kind = kind
        self.momentum = momentum
        self.register_buffer("shares", torch.zeros(classes))
        self.register_buffer("mean", torch.full((classes,), 1 / classes))
        self.register_buffer("confidence", torch.tensor(1 / classes))

    @torch.no_grad()
    def forward(self, probability: Tensor, valid: Tensor, *, above: float) -> Tensor:
        """Average this prediction in, and keep what is above the threshold of its class."""
        if above <= 0:
            return valid
        confidence, label = probability.max(1)
        self._observe(probability, confidence, label, valid, above)
        return valid & (confidence > self.thresholds(above)[label])

    def thresholds(self, above: float) -> Tensor:
        """(C,) the threshold of each class now."""
        if self.kind == "freematch":
            return self.mean / self.mean.max() * self.confidence
        unused = 1 - self.shares.sum()
        effect = self.shares / torch.maximum(self.shares.max(), unused).clamp(min=1e-9)
        return effect / (2 - effect) * above

    def _observe(
        self, probability: Tensor, confidence: Tensor, label: Tensor, valid: Tensor, above: float
    ) -> None:
        count = processes.total(valid.sum())
        weight = (1 - self.momentum) * (count > 0)  # nothing valid says nothing
        divisor = count.clamp(min=1)
        if self.kind == "freematch":
            mean = processes.total((probability * valid.unsqueeze(1)).sum((0, 2, 3))) / divisor
            self.mean.lerp_(mean.to(self.mean.dtype), weight)
            average = processes.total((confidence * valid).sum()) / divisor
            self.confidence.lerp_(average.to(self.confidence.dtype), weight)
        else:
            used = (valid & (confidence > above)).flatten().to(self.shares.dtype)
            counts = torch.zeros_like(self.shares).scatter_add_(0, label.flatten(), used)
            self.shares.lerp_(processes.total(counts) / divisor, weight)
