"""Thresholds of pseudo-labels: a fixed one, or adaptive ones for each class.

A method with a threshold calls ``progress.keep(probability, valid, above=τ)``, so that it can use
each of these rules (Mean Teacher, U²PL and self-training have no threshold):

- ``fixed``: confidence above τ, as in FixMatch;
- ``flexmatch``: τ_c = β_c / (2 − β_c) · τ, where β_c is how often class c is predicted above τ,
  divided by the largest such number, or by the number of unused pixels while that is larger
  (Zhang et al., NeurIPS 2021, eq. 5–7 and the warm-up of section 3.2);
- ``freematch``: τ_c = max(1/2, r_c / max r · τ_t), where τ_t is the mean confidence and
  r_c = p̃_c / p_c the mean prediction over the labels' share of the class (Wang et al., ICLR 2023,
  eq. 5–8). It learns τ_t; the method's τ does not enter.

Both papers count images of classes that are equally frequent; here pixels are counted, of all
processes. FreeMatch's own τ_c = p̃_c / max p̃ · τ_t mistakes a rare class for one that is not yet
learned: with terrain classes of 1 % and 60 % of the pixels the rare ones get thresholds below 1/C,
and every pixel passes. So p̃_c is divided by the class's share of the labels, which changes nothing
where classes are equally frequent, and no threshold falls below one half, where the class is more
likely than all others together.

FreeMatch's loss L_f, which makes predictions fair, is left out. FlexMatch counts over its whole
data set; here a running average is used. The momentum is 0.99, because FreeMatch's 0.999 is too
slow for runs of a few thousand steps.

With τ ≤ 0 every rule keeps all valid pixels.
"""

from __future__ import annotations

from typing import Protocol, get_args

import torch
from torch import Tensor, nn

from s5mars.errors import UserError
from s5mars.objective.alignment import class_shares
from s5mars.objective.averages import RunningMean
from s5mars.settings.config import Thresholds

LOWEST = 0.5
"""Smallest threshold of ``freematch``."""


class Keep(Protocol):
    """A rule that selects the pixels of a prediction that become pseudo-labels."""

    def __call__(self, probability: Tensor, valid: Tensor, *, above: float) -> Tensor:
        """(B, C, H, W) probabilities, (B, H, W) bool, τ → (B, H, W) bool."""
        ...


def above_threshold(probability: Tensor, valid: Tensor, *, above: float) -> Tensor:
    """Valid pixels whose largest probability is above τ."""
    return valid & (probability.amax(1) > above)


class ClassThresholds(nn.Module):
    """Class-wise thresholds; their running averages are saved in every checkpoint.

    Args:
        shares: (C,) class shares or areas of the labels.
        kind: ``flexmatch`` or ``freematch``.
        momentum: momentum of the averages, in [0, 1).

    Raises:
        UserError: if ``kind`` is unknown.
    """

    prior: Tensor

    def __init__(self, shares: Tensor, *, kind: Thresholds, momentum: float) -> None:
        super().__init__()
        if kind not in get_args(Thresholds)[1:]:
            raise UserError(f"kind must be flexmatch or freematch (got {kind!r})")
        self.kind = kind
        self.register_buffer("prior", class_shares(shares), persistent=False)
        classes = len(shares)
        self.used = RunningMean(classes, momentum=momentum)  # share of the pixels above τ, by class
        self.mean = RunningMean(classes, momentum=momentum)  # p̃
        self.confidence = RunningMean(momentum=momentum)  # τ_t

    @torch.no_grad()
    def forward(self, probability: Tensor, valid: Tensor, *, above: float) -> Tensor:
        """Update the averages, and keep pixels above the threshold of their class."""
        if above <= 0:
            return valid
        confidence, label = probability.max(1)
        count = valid.sum()
        if self.kind == "freematch":
            self.mean.update((probability * valid.unsqueeze(1)).sum((0, 2, 3)), count)
            self.confidence.update((confidence * valid).sum(), count)
        else:
            used = (valid & (confidence > above)).flatten().float()
            by_class = torch.zeros_like(self.prior).scatter_add_(0, label.flatten(), used)
            self.used.update(by_class, count)
        return valid & (confidence > self.thresholds(above)[label])

    def thresholds(self, above: float) -> Tensor:
        """(C,) the current threshold of each class."""
        if self.kind == "freematch":
            learned = self.mean.value / self.prior
            relative = learned / learned.max().clamp(min=1e-12)
            return (relative * self.confidence.value).clamp(min=LOWEST)
        used = self.used.value
        effect = used / torch.maximum(used.max(), 1 - used.sum()).clamp(min=1e-9)
        return effect / (2 - effect) * above
