"""Distribution alignment: keep the teacher's classes as frequent as the labels' are.

ReMixMatch (Berthelot et al., ICLR 2020), which the S5Mars paper names as its natural extension:
q̃ = normalise(q · p(y) / p̃(y)), with p(y) the class shares of the labels and p̃(y) those of the
teacher's predictions for the pool, as a running average. Without it, a small
bias of the teacher towards a class reinforces itself.

Both shares must refer to the same kind of crops: p(y) is the average over plain crops of the
labelled images (``data.crops.coverage``), not over whole images, whose borders crops see less
often, and p̃(y) counts only the pool, as in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s5mars.objective.averages import RunningMean

FLOOR = 1e-3
"""Smallest share of a class, so that classes without labels are not excluded."""


def class_shares(areas: Tensor) -> Tensor:
    """(C,) shares or areas of the labels → shares, none below ``FLOOR``."""
    return (areas.float() / areas.sum().clamp(min=1e-12)).clamp(min=FLOOR)


class Alignment(nn.Module):
    """Align predictions for the pool with the class shares of the labels.

    Args:
        shares: (C,) p(y), class shares or areas of the labels.
        momentum: momentum of the average of the predictions, in [0, 1).
        power: exponent of the labels' shares, in [0, 1]: 1 keeps the shares, smaller
            values favour rare classes (CReST, Wei et al., CVPR 2021).
    """

    wanted: Tensor

    def __init__(self, shares: Tensor, *, momentum: float, power: float) -> None:
        super().__init__()
        wanted = class_shares(shares) ** power
        self.register_buffer("wanted", wanted / wanted.sum(), persistent=False)
        self.predicted = RunningMean(len(shares), momentum=momentum)

    @torch.no_grad()
    def forward(self, probability: Tensor, valid: Tensor) -> Tensor:
        """Update the average with a prediction, and return the aligned prediction.

        Args:
            probability: (B, C, H, W) float, the teacher's softmax output for images of the pool.
            valid: (B, H, W) bool, the pixels that count in the average.

        Returns:
            (B, C, H, W) float, which sums to 1 over the classes.
        """
        self.predicted.update((probability * valid.unsqueeze(1)).sum((0, 2, 3)), valid.sum())
        aligned = probability * self.ratio.view(1, -1, 1, 1).to(probability.dtype)
        return aligned / aligned.sum(1, keepdim=True)

    @property
    def ratio(self) -> Tensor:
        """(C,) p(y)^power / p̃(y); ones before the first prediction."""
        predicted = self.predicted.value.clamp(min=FLOOR)
        return torch.where(self.predicted.is_empty, 1.0, self.wanted / predicted)
