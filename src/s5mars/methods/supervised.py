"""Supervised: the labelled pixels only; the first row of table III."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from s5mars.types import Batch, Needs, Progress, Term


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """L = L_sup, the mean cross-entropy over the labelled pixels."""

    title: ClassVar[str] = "Supervised"

    @property
    def needs(self) -> Needs:
        """Only the labelled stream."""
        return Needs()

    def losses(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> dict[str, Term]:
        """One term, ``supervised``."""
        logits = student(batch.labelled.image)
        return {"supervised": Term(progress.criterion(logits, batch.labelled.label))}
