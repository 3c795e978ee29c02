"""RanPaste: labelled rectangles pasted anywhere on pool images, with pseudo-labels around them.

Wang et al., "RanPaste: Paste Consistency and Pseudo Label for Semisupervised Remote Sensing Image
Semantic Segmentation", IEEE TGRS 2022; a row of table III.

Neither the text nor the code of the paper was available. Known are its title, that regions of
labelled images are pasted at random onto unlabelled ones, that the network must be consistent under
the paste, and that pseudo-labels above a threshold are used. The rest is an interpretation and may
differ from the paper in any detail:

    x, y = R ⊙ (labelled image, label) + (1 − R) ⊙ (pool image, argmax p_t)
    L    = L_sup + λ · mean over valid pixels of 1(max p_t > τ) · CE(p_s(x), y)

- R is one rectangle per image, cut at a random position and pasted at another one, its sides drawn
  as in CutMix (``augment/random_paste.py``).
- "Paste consistency" is taken to be this cross-entropy: the prediction for the pasted image should
  be the paste of the predictions for its parts. It is not a second term.
- p_t is the prediction of an EMA teacher for the weak view; τ = 0.95 and λ = 1, as in FixMatch.
- The donor's pixels without a label (labels here are sparse) have the teacher's pseudo-label.
- No photometric augmentation.

Where the label of a pool pixel is known, it replaces the pseudo-label, with confidence 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from s5mars.augment.mix import select
from s5mars.augment.random_paste import random_paste
from s5mars.augment.statistics import partners
from s5mars.devices import send
from s5mars.errors import require_limit
from s5mars.methods.fixmatch import consistency
from s5mars.methods.views import kept_pixels, logits_of_both, pool_of, weak_views
from s5mars.types import Batch, Needs, Progress, Term, View


@dataclass(frozen=True, kw_only=True)
class RanPaste:
    """The method; the constants of its paper were not available.

    Args:
        unsupervised_weight: Weight λ of the unsupervised term.
        threshold: Confidence τ above which pseudo-labels are kept.
        beta: Parameter of the rectangles' sides, λ ~ Beta(beta, beta), as in CutMix.
    """

    title: ClassVar[str] = "RanPaste"

    unsupervised_weight: float = 1.0
    threshold: float = 0.95
    beta: float = 4.0

    def __post_init__(self) -> None:
        require_limit("at least 0", unsupervised_weight=self.unsupervised_weight)
        require_limit("at most 1", threshold=self.threshold)
        require_limit("above 0", beta=self.beta)

    @property
    def needs(self) -> Needs:
        """A pool and a teacher."""
        return Needs(pool=True, teacher=True)

    def losses(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> dict[str, Term]:
        """Two terms: ``supervised`` and ``pasted``."""
        pasted = self.pasted_view(teacher, batch, progress)

        logits, pasted_logits = logits_of_both(student, batch.labelled, pasted)
        targets = pasted.targets
        kept = kept_pixels(targets, progress, above=self.threshold)
        weight = self.unsupervised_weight * progress.ramp
        return {
            "supervised": Term(progress.criterion(logits, batch.labelled.label)),
            "pasted": consistency(pasted_logits, targets, kept=kept, weight=weight),
        }

    @torch.no_grad()
    def pasted_view(self, teacher: nn.Module, batch: Batch, progress: Progress) -> View:
        """x and y: one rectangle of a labelled image on every pool image."""
        pool, donors = weak_views(teacher, pool_of(batch), batch.labelled, progress)
        rngs = progress.generators("random paste", len(pool.image))
        chosen = partners(len(pool.image)) % len(donors.image)
        donors = select(donors, send(chosen, pool.image.device))
        return random_paste(donors, pool, rngs, beta=self.beta)
