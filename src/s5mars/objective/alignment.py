"""Distribution alignment: keep the teacher's classes as frequent as the labels' are.

ReMixMatch (Berthelot et al., ICLR 2020), which the S5Mars paper names as its natural extension:
q̃ = normalise(q · p(y) / p̃(y)), with p(y) the class shares of the labels and p̃(y) those of the
teacher's predictions for the pool, as a running average. Without it a class that the teacher
prefers a little on unfamiliar images feeds on its own pseudo-labels.

Both shares must be of the same kind of crops: p(y) is what plain crops of the labelled images show
on average (``data.crops.coverage``), not the areas of whole images, whose borders crops see less
often, and p̃(y) counts the pool alone, as in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s5mars.objective.averages import RunningMean

FLOOR = 1e-3
"""Smallest share of a class: one that no label has shown is held back, not forbidden."""


class Alignment(nn.Module):
    """Corrects predictions for the pool, and remembers how they were distributed before.

    Args:
        shares: (C,) p(y), class shares or areas of the labels.
        momentum: of the average of the predictions, in [0, 1).
        power: exponent of the labels' shares, in [0, 1]: 1 asks for the shares themselves, less
            for a flatter distribution that favours rare classes (CReST, Wei et al., CVPR 2021).
    """

    wanted: Tensor

    def __init__(self, shares: Tensor, *, momentum: float = 0.98, power: float = 1.0) -> None:
        super().__init__()
        shares = shares.float() / shares.sum().clamp(min=1e-12)
        wanted = shares.clamp(min=FLOOR) ** power
        self.register_buffer("wanted", wanted / wanted.sum(), persistent=False)
        self.predicted = RunningMean(len(shares), momentum=momentum)

    @torch.no_grad()
    def forward(self, probability: Tensor, valid: Tensor) -> Tensor:
        """Average a prediction in, and return it aligned.

        Args:
            probability: (B, C, H, W) float, the teacher's softmax output for images of the pool.
            valid: (B, H, W) bool, the pixels that count in the average.

        Returns:
            (B, C, H, W) float, which sums to 1 over the classes.
        """
        self.predicted.observe((probability * valid.unsqueeze(1)).sum((0, 2, 3)), valid.sum())
        aligned = probability * self.ratio.view(1, -1, 1, 1).to(probability.dtype)
        return aligned / aligned.sum(1, keepdim=True)

    @property
    def ratio(self) -> Tensor:
        """(C,) p(y)^power / p̃(y); ones before the first prediction."""
        predicted = self.predicted.value.clamp(min=FLOOR)
        return torch.where(self.predicted.is_empty, 1.0, self.wanted / predicted)
