"""FixMatch: a network predicts labels for weak views and is trained on strong views.

Sohn et al., NeurIPS 2020, for segmentation as the FixMatch baseline of Yang et al., CVPR 2023:

    L   = L_x + λ_u · L_u
    L_u = mean over pixels of 1(max p_w > τ) · CE(p_s, argmax p_w)

with p_w the prediction for the weak view and p_s that for the strong view, which has changed
colours and, with probability 0.5, a CutMix rectangle of another image of the pool. There is no
moving average: the student is scored.

- λ_u = 1, as the paper. The baseline's code halves the whole sum, which with its SGD is much like
  half the learning rate, and with AdamW changes almost nothing.
- The mean is over the valid pixels, kept or not (paper and code).
- The network predicts labels in evaluation mode, without dropout and with its running batch
  statistics, which this pass does not update. The baseline's code does so for the pasted image,
  and takes the labels of the other one from the training pass.
- The pasted image is its neighbour in the batch; the code has a second loader.
- True labels of the pool override pseudo-labels and are kept, so that every method gets the same
  information.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from s5mars.augment.geometric import inner_rectangles
from s5mars.augment.mix import paste, select
from s5mars.augment.photometric import Photometric, photometric
from s5mars.augment.statistics import partners
from s5mars.devices import send
from s5mars.errors import require_limit
from s5mars.methods.views import kept_pixels, logits_of_both, pool_of, weak_view
from s5mars.objective.losses import hard_loss, pixels
from s5mars.randomness import Generators
from s5mars.types import Batch, Crops, Needs, Progress, Targets, Term, View


@dataclass(frozen=True, kw_only=True)
class FixMatch:
    """The method, with the constants of the UniMatch paper's baseline.

    Args:
        unsupervised_weight: Weight λ_u of the unsupervised terms.
        threshold: Confidence τ above which pseudo-labels are kept.
        photometric: Photometric augmentation of the strong view.
        rectangle: Probability of a CutMix rectangle.
    """

    title: ClassVar[str] = "FixMatch"

    unsupervised_weight: float = 1.0
    threshold: float = 0.95
    photometric: Photometric = "fixmatch"
    rectangle: float = 0.5

    def __post_init__(self) -> None:
        require_limit("at least 0", unsupervised_weight=self.unsupervised_weight)
        require_limit("in [0, 1]", rectangle=self.rectangle)
        require_limit("at most 1", threshold=self.threshold)

    @property
    def needs(self) -> Needs:
        """A pool; the student labels for itself."""
        return Needs(pool=True)

    def losses(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> dict[str, Term]:
        """Two terms: ``supervised`` and ``strong``."""
        weak = weak_view(teacher, pool_of(batch), progress)
        kept = kept_pixels(weak.targets, progress, above=self.threshold)
        strong, kept = strong_view(
            weak,
            kept,
            progress.generators("strong view", len(kept)),
            kind=self.photometric,
            rectangle=self.rectangle,
        )
        return supervised_and_strong(
            student,
            batch.labelled,
            strong,
            progress,
            kept=kept,
            weight=self.unsupervised_weight,
        )


def strong_view(
    weak: View, kept: Tensor, rngs: Generators, *, kind: Photometric, rectangle: float
) -> tuple[View, Tensor]:
    """Change colours, then paste a rectangle of a partner; ``kept`` (B, H, W) follows."""
    height, width = weak.image.shape[2:]
    device = weak.image.device
    image = photometric(weak.image, weak.targets.valid, kind=kind, generators=rngs)
    strong = View(image, weak.targets)
    partner = send(partners(len(kept)), device)
    region = send(inner_rectangles((height, width), rngs, probability=rectangle), device)
    return paste(region, select(strong, partner), strong), torch.where(region, kept[partner], kept)


def two_strong_views(
    weak: View, kept: Tensor, progress: Progress, *, kind: Photometric, rectangle: float
) -> list[tuple[View, Tensor]]:
    """Two strong views of one weak view, with different random draws, as UniMatch uses them."""
    return [
        strong_view(
            weak,
            kept,
            progress.generators(purpose, len(kept)),
            kind=kind,
            rectangle=rectangle,
        )
        for purpose in ("strong view", "second strong view")
    ]


def supervised_and_strong(
    student: nn.Module,
    labelled: Crops,
    strong: View,
    progress: Progress,
    *,
    kept: Tensor,
    weight: float,
) -> dict[str, Term]:
    """L_x and λ_u · L_u from one pass over labelled images and strong views."""
    logits, strong_logits = logits_of_both(student, labelled, strong)
    return {
        "supervised": Term(progress.criterion(logits, labelled.label)),
        "strong": consistency(
            strong_logits, strong.targets, kept=kept, weight=weight * progress.ramp
        ),
    }


def consistency(logits: Tensor, targets: Targets, *, kept: Tensor, weight: float) -> Term:
    """L_u: cross-entropy with the kept labels, over the valid pixels."""
    return Term(
        hard_loss(logits, targets.hard, kept=kept, valid=targets.valid, over="valid"),
        weight=weight,
        share=pixels(kept) / pixels(targets.valid).clamp(min=1),
    )
