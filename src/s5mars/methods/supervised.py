"""Supervised: the labelled pixels and nothing else; the first row of table III."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from s5mars.losses import cross_entropy, ohem_cross_entropy
from s5mars.types import Batch, Needs, Progress, Term


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """L = L_sup, the mean cross-entropy over the labelled pixels.

    Args:
        ohem: Online hard example mining in the supervised loss, as the authors of S5Mars released
            it.
    """

    ohem: bool = False

    @property
    def needs(self) -> Needs:
        """Only the labelled stream."""
        return Needs()

    def losses(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> dict[str, Term]:
        """One term, ``supervised``."""
        criterion = ohem_cross_entropy if self.ohem else cross_entropy
        logits = student(batch.labelled.image)
        return {"supervised": Term(criterion(logits, batch.labelled.label))}
