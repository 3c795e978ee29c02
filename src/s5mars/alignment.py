"""Distribution alignment: keep the teacher's classes as frequent as the labels' are.

ReMixMatch (Berthelot et al., ICLR 2020), which the S5Mars paper names as its natural extension:
q̃ = normalise(q · p(y) / p̃(y)), with p(y) the class shares of the labels and p̃(y) those of the
teacher's predictions, both as running averages. Without it a class that the teacher prefers a
little on unfamiliar images feeds on its own pseudo-labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from s5mars import processes
from s5mars.models.network import Network

FLOOR = 1e-3
"""Smallest share of a class: one that no label has shown yet is held back, not forbidden."""


class Alignment(nn.Module):
    """Running class shares of labels and predictions; a part of every checkpoint.

    Args:
        classes: number C of classes.
        momentum: of both averages, in [0, 1).
        power: exponent of the labels' shares, in [0, 1]: 1 asks for the shares themselves, less
            for a flatter distribution that favours rare classes (CReST, Wei et al., CVPR 2021).
    """

    labelled: Tensor
    predicted: Tensor

    def __init__(self, classes: int, *, momentum: float = 0.98, power: float = 1.0) -> None:
        super().__init__()
        self.momentum = momentum
        self.power = power
        for name in ("labelled", "predicted"):
            self.register_buffer(name, torch.full((classes,), 1 / classes))

    @torch.no_grad()
    def observe_areas(self, areas: Tensor) -> None:
        """Average in the class shares of (C,) label areas, of a whole partition for one.

        Not set at once: the average of the predictions starts evenly, too, and a ratio of the two
        would first favour the commonest class.
        """
        shares = areas / areas.sum().clamp(min=1)
        self.labelled.lerp_(shares.to(self.labelled.dtype), 1 - self.momentum)

    @torch.no_grad()
    def observe_labels(self, label: Tensor) -> None:
        """Average in the class shares of (B, H, W) labels; IGNORE does not count."""
        # Counted class by class in one comparison: indexing by a mask would wait for the device.
        classes = torch.arange(len(self.labelled), device=label.device).view(-1, 1, 1, 1)
        counts = (label == classes).sum((1, 2, 3))
        self._average(self.labelled, counts.to(self.labelled.dtype))

    @torch.no_grad()
    def observe_predictions(self, probability: Tensor, counted: Tensor) -> None:
        """Average in the mean of (B, C, H, W) probabilities over the (B, H, W) counted pixels."""
        self._average(self.predicted, (probability * counted.unsqueeze(1)).sum((0, 2, 3)))

    @property
    def correction(self) -> Tensor:
        """(C,) log p(y)^power − log p̃(y), to be added to logits."""
        wanted = self.labelled.clamp(min=FLOOR) ** self.power
        wanted = wanted / wanted.sum()
        return wanted.log() - self.predicted.clamp(min=FLOOR).log()

    def _average(self, average: Tensor, counts: Tensor) -> None:
        counts = processes.total(counts)  # the shares stay the same in all of them
        total = counts.sum()
        # A batch without a label, or without a valid pixel, says nothing.
        share = torch.where(total > 0, counts / total.clamp(min=1e-9), average)
        average.lerp_(share, 1 - self.momentum)


class AlignedTeacher(nn.Module):
    """A teacher whose logits are corrected: softmax then gives the aligned distribution.

    It offers the parts of ``models.network.Network`` where its teacher has them. What it predicts
    enters the running average, in ``forward`` as in ``classify``, both of which stand inside of
    ``counting``.
    """

    def __init__(self, teacher: nn.Module, alignment: Alignment) -> None:
        super().__init__()
        self.teacher = teacher
        self.alignment = alignment
        self.counted: Tensor | None = None

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, C, H, W) corrected logits."""
        logits: Tensor = self.teacher(image)
        return self._correct(logits)

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As the teacher does."""
        return self._network.features(image)

    def fuse(self, low: Tensor, high: Tensor) -> Tensor:
        """As the teacher does."""
        return self._network.fuse(low, high)

    def represent(self, fused: Tensor) -> Tensor:
        """As the teacher does."""
        return self._network.represent(fused)

    def classify(self, fused: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Corrected logits at ``size``, the image's."""
        return self._correct(self._network.classify(fused, size=size))

    def decode(self, low: Tensor, high: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Features → corrected logits at ``size``."""
        return self.classify(self.fuse(low, high), size=size)

    @property
    def _network(self) -> Network:
        return cast(Network, self.teacher)

    def _correct(self, logits: Tensor) -> Tensor:
        counted = self.counted
        if counted is None or counted.shape != (len(logits), *logits.shape[-2:]):
            raise ValueError(
                f"an aligned teacher gave logits of shape {tuple(logits.shape)}, but `counting` "
                f"spoke of {None if counted is None else tuple(counted.shape)}"
            )
        self.alignment.observe_predictions(logits.detach().softmax(1), counted)
        return logits + self.alignment.correction.view(1, -1, 1, 1).to(logits.dtype)


@contextmanager
def counting(teacher: nn.Module, valid: Tensor) -> Iterator[None]:
    """Say which pixels count of the images that a teacher sees inside; (B, H, W) bool.

    A teacher that is not aligned does not ask.
    """
    if not isinstance(teacher, AlignedTeacher):
        yield
        return
    teacher.counted = valid
    try:
        yield
    finally:
        teacher.counted = None
