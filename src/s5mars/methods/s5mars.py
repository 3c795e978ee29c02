"""S5Mars: AugIN, SAM-Mix and soft-to-hard consistency with an EMA teacher.

Zhang et al., "S5Mars: Semi-Supervised Learning for Mars Semantic Segmentation", IEEE TGRS 2024:

    L       = L_sup + λ_u · L_unsup                        (1)
    θ_t     ← m θ_t + (1 − m) θ_s                          (2), in ``objective/teacher.py``
    L_hard  = mean over pixels of CE(p_s, 1(argmax p_t))   (3, 4), where max p_t > t_hard
    AugIN                                                  (5), in ``augment/statistics.py``
    L_soft  = mean over pixels of −p_t · log p_s           (6), where max p_t < t_soft
    L_unsup = λ_h · L_hard + λ_s · L_soft                  (7), where λ_h is 1

Where the released code differs, this file follows the paper; the recipe ``as_released`` lists the
differences. Both losses divide by the valid pixels, which is the H×W of equations 3 and 6 when
nothing is padded. True labels override pseudo-labels: a labelled pixel has confidence 1, so it
enters the hard loss and never the soft one.

The paper's ablations are values of the fields below, by name in ``settings/ablations.py``. Eq. 7
has no λ_h; it is here so that the hard loss can be switched off (table X).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from s5mars.augment.exchange import Exchange, exchange
from s5mars.augment.photometric import Photometric, photometric
from s5mars.augment.sam_mix import SamMix
from s5mars.augment.statistics import partners
from s5mars.devices import send
from s5mars.errors import require_limit
from s5mars.methods.views import kept_pixels, logits_of_both, pool_of, weak_view, weak_views
from s5mars.objective.losses import Over, hard_and_soft_loss, pixels
from s5mars.randomness import Generators
from s5mars.types import Batch, Crops, Needs, Progress, Term, View


@dataclass(frozen=True, kw_only=True)
class S5Mars:
    """The method, with the constants of section V-B of the paper.

    Args:
        unsupervised_weight: Weight λ_u of the unsupervised terms.
        hard_weight: Weight λ_h of the hard loss; 0 switches it off.
        soft_weight: Weight λ_s of the soft loss, times λ_u; 0 switches it off.
        hard_threshold: Confidence t_hard above which pixels get hard labels.
        soft_threshold: Confidence t_soft below which pixels get soft labels.
        hard_over: Pixels that the hard loss divides by.
        soft_over: Pixels that the soft loss divides by.
        photometric: Photometric augmentation of the strong view, as in figure 5; the paper:
            none.
        swap: Statistics that images exchange; ``std`` is AugIN-σ.
        mix: Settings of the paste.
    """

    title: ClassVar[str] = "S5Mars"

    unsupervised_weight: float = 2.0
    hard_weight: float = 1.0
    soft_weight: float = 1.0
    hard_threshold: float = 0.7
    soft_threshold: float = 0.9
    hard_over: Over = "valid"
    soft_over: Over = "valid"
    photometric: Photometric = "none"
    swap: Exchange = "std"
    mix: SamMix = field(default_factory=SamMix)

    def __post_init__(self) -> None:
        require_limit(
            "at least 0",
            unsupervised_weight=self.unsupervised_weight,
            hard_weight=self.hard_weight,
            soft_weight=self.soft_weight,
        )
        require_limit(
            "at most 1", hard_threshold=self.hard_threshold, soft_threshold=self.soft_threshold
        )

    @property
    def needs(self) -> Needs:
        """A pool, a teacher and, for SAM-Mix, one object per labelled image."""
        return Needs(pool=True, teacher=True, objects=self.mix.source == "objects")

    def losses(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> dict[str, Term]:
        """Three terms: ``supervised``, ``hard`` and ``soft``."""
        strong = self.strong_view(teacher, batch, pool_of(batch), progress)

        logits, strong_logits = logits_of_both(student, batch.labelled, strong)

        targets = strong.targets
        hard = kept_pixels(targets, progress, above=self.hard_threshold)
        soft = targets.valid & (targets.confidence < self.soft_threshold)
        valid_pixels = pixels(targets.valid).clamp(min=1)
        weight = self.unsupervised_weight * progress.ramp
        hard_loss, soft_loss = hard_and_soft_loss(
            strong_logits,
            targets.hard,
            targets.probability,
            kept=(hard, soft),
            valid=targets.valid,
            over=(self.hard_over, self.soft_over),
        )
        return {
            "supervised": Term(progress.criterion(logits, batch.labelled.label)),
            "hard": Term(
                hard_loss, weight=weight * self.hard_weight, share=pixels(hard) / valid_pixels
            ),
            "soft": Term(
                soft_loss, weight=weight * self.soft_weight, share=pixels(soft) / valid_pixels
            ),
        }

    @torch.no_grad()
    def strong_view(
        self, teacher: nn.Module, batch: Batch, pool: Crops, progress: Progress
    ) -> View:
        """Label the weak views, and augment those of the pool.

        The teacher sees pool and donors in one batch.
        """
        donors: View | None
        if self.mix.donors == "labelled":
            weak, donors = weak_views(teacher, pool, batch.labelled, progress)
        else:
            weak = weak_view(teacher, pool, progress)
            donors = weak if self.mix.donors == "pool" else None
        partner = send(partners(len(pool.image)), pool.image.device)
        rngs = progress.generators("strong view", len(pool.image))
        return self.augment(weak, donors, batch.labelled.objects, partner=partner, rngs=rngs)

    def augment(
        self,
        weak: View,
        donors: View | None,
        objects: Tensor | None,
        *,
        partner: Tensor,
        rngs: Generators,
    ) -> View:
        """The strong view of weak ones: colours, exchange with the partner, paste.

        Only the image around the paste exchanges statistics.

        Args:
            weak: B images of the pool and their targets.
            donors: images that regions are cut from, see ``SamMix``.
            objects: (L, H, W) bool, an object of each donor.
            partner: (B,) int64 index of the image whose statistics each image takes.
            rngs: generators of the step, one per image.
        """
        valid = weak.targets.valid
        image = photometric(weak.image, valid, kind=self.photometric, generators=rngs)
        image = exchange(image, valid, partner=partner, kind=self.swap)
        return self.mix(replace(weak, image=image), donors, objects, rngs)
