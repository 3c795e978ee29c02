"""ClassMix on a Mean Teacher: half of an image's classes, pasted onto another image.

Olsson et al., "ClassMix: Segmentation-Based Data Augmentation for Semi-Supervised Learning",
WACV 2021; the row MT + ClassMix of table III:

    S_A   = argmax f_θ'(A)                      the teacher's prediction for image A
    M     = S_A ∈ c, c: half of the classes     in ``augment/class_mix.py``
    X, Y  = M ⊙ (A, S_A) + (1 − M) ⊙ (B, S_B)
    L     = L_sup + λ · mean over pixels of CE(f_θ(X), Y)

with λ the share of mixed pixels whose confidence is above 0.968, over the batch, and θ' the moving
average in ``objective/teacher.py``.

- A and B are neighbours in the pool's random order; the released code takes the next image.
- The paper perturbs images by mixing alone, as here; the released settings for Cityscapes add
  colour jitter and blur, those for VOC do not.
- Probabilities, true labels and validity are mixed with their pixels. A known label of a pool
  pixel sets its class, its pseudo-label and a confidence of 1.
- Pixels that are not valid are neither pasted nor counted; the paper has no such pixels.
- Class-wise thresholds (``objective/thresholds.py``) change which pixels count in λ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from s5mars.augment.class_mix import class_regions
from s5mars.augment.mix import paste, select
from s5mars.augment.statistics import partners
from s5mars.devices import send
from s5mars.errors import require_limit
from s5mars.methods.views import kept_pixels, logits_of_both, pool_of, weak_view
from s5mars.objective.losses import hard_loss, pixels
from s5mars.types import Batch, Crops, Needs, Progress, Term, View


@dataclass(frozen=True, kw_only=True)
class ClassMix:
    """The method, with the constants of its paper.

    Args:
        unsupervised_weight: Additional factor on λ.
        confident: Confidence above which a pixel counts in the share λ.
        class_share: Share of the classes of image A that are pasted.
    """

    title: ClassVar[str] = "MT + ClassMix"

    unsupervised_weight: float = 1.0
    confident: float = 0.968
    class_share: float = 0.5

    def __post_init__(self) -> None:
        require_limit("at least 0", unsupervised_weight=self.unsupervised_weight)
        require_limit("in [0, 1]", class_share=self.class_share)
        require_limit("at most 1", confident=self.confident)

    @property
    def needs(self) -> Needs:
        """A pool and a teacher."""
        return Needs(pool=True, teacher=True)

    def losses(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> dict[str, Term]:
        """Two terms: ``supervised`` and ``mixed``, whose share is λ."""
        mixed = self.mixed_view(teacher, pool_of(batch), progress)

        logits, mixed_logits = logits_of_both(student, batch.labelled, mixed)
        targets = mixed.targets
        confident = kept_pixels(targets, progress, above=self.confident)
        share = pixels(confident) / pixels(targets.valid).clamp(min=1)  # λ
        loss = hard_loss(
            mixed_logits, targets.hard, kept=targets.valid, valid=targets.valid, over="valid"
        )
        return {
            "supervised": Term(progress.criterion(logits, batch.labelled.label)),
            "mixed": Term(
                share * loss, weight=self.unsupervised_weight * progress.ramp, share=share
            ),
        }

    @torch.no_grad()
    def mixed_view(self, teacher: nn.Module, pool: Crops, progress: Progress) -> View:
        """X and Y: half of A's classes on B."""
        view = weak_view(teacher, pool, progress)
        other = select(view, send(partners(len(pool.image)), pool.image.device))
        region = class_regions(
            other.targets.hard,
            other.targets.valid,
            generators=progress.generators("class mix", len(pool.image)),
            share=self.class_share,
        )
        return paste(region, other, view)
