"""UniMatch: two strong views, and perturbed features of the weak view.

Yang et al., CVPR 2023:

    L = L_x + λ_u · (μ_1 · L_s1 + μ_2 · L_s2 + λ_fp · L_fp)

    L_s1, L_s2   FixMatch's loss on two strong views, each with its own colours and CutMix
    L_fp         the same on the weak view, decoded from features of which half the channels
                 are dropped

with λ_u = 1, μ_1 = μ_2 = 0.25 and λ_fp = 0.5. The published loss is half of this sum (see
``fixmatch.py``); here the labels weigh the same for every method, as in ``fixmatch.py``.
There is no moving average: the student is scored.

- The means are over the valid pixels, kept or not (paper and code).
- Labels come from a pass in evaluation mode, as in ``fixmatch.py``; the code takes them from the
  training pass, except those of the pasted image.
- Both the low-level and the high-level features are dropped (code; the paper shows one arrow).
- Labelled, weak and strong images pass the encoder in one batch; the code uses two, so that batch
  statistics are computed over all of them here, and separately for strong ones there. The weak view
  is decoded only with dropped features, because no other output is used.
- True labels of the pool override pseudo-labels and are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from s5mars.augment.photometric import Photometric
from s5mars.errors import require_limit
from s5mars.methods.fixmatch import consistency, two_strong_views
from s5mars.methods.views import as_float, kept_pixels, pool_of, weak_view
from s5mars.models.dropout import drop_channels
from s5mars.models.network import Network
from s5mars.types import Batch, Needs, Progress, Term, View


@dataclass(frozen=True, kw_only=True)
class UniMatch:
    """The method, with the constants of its paper.

    Args:
        unsupervised_weight: Weight λ_u of the unsupervised terms.
        strong_weights: Weights μ_1 and μ_2 of the two strong views.
        feature_weight: Weight λ_fp of the view whose feature channels are dropped.
        threshold: Confidence τ above which pseudo-labels are kept.
        dropped: Share of the feature channels that are dropped.
        photometric: Photometric augmentation of the strong views.
        rectangle: Probability of a CutMix rectangle.
    """

    title: ClassVar[str] = "UniMatch"

    unsupervised_weight: float = 1.0
    strong_weights: tuple[float, float] = (0.25, 0.25)
    feature_weight: float = 0.5
    threshold: float = 0.95
    dropped: float = 0.5
    photometric: Photometric = "fixmatch"
    rectangle: float = 0.5

    def __post_init__(self) -> None:
        require_limit(
            "at least 0",
            unsupervised_weight=self.unsupervised_weight,
            feature_weight=self.feature_weight,
        )
        for weight in self.strong_weights:
            require_limit("at least 0", strong_weights=weight)
        require_limit("in [0, 1)", dropped=self.dropped)
        require_limit("in [0, 1]", rectangle=self.rectangle)
        require_limit("at most 1", threshold=self.threshold)

    @property
    def needs(self) -> Needs:
        """A pool; the student labels for itself."""
        return Needs(pool=True)

    def losses(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> dict[str, Term]:
        """``supervised``, ``strong_1``, ``strong_2``, ``features``."""
        weak = weak_view(teacher, pool_of(batch), progress)
        kept = kept_pixels(weak.targets, progress, above=self.threshold)
        (first, _), (second, _) = strong = self.strong_views(weak, kept, progress)
        labelled = batch.labelled
        logits, weak_logits, *strong_logits = self.logits(
            student, [as_float(labelled.image), weak.image, first.image, second.image]
        )
        weight = self.unsupervised_weight * progress.ramp
        return {
            "supervised": Term(progress.criterion(logits, labelled.label)),
            **self.consistencies(
                [*strong_logits, weak_logits], [*strong, (weak, kept)], weight=weight
            ),
        }

    def strong_views(
        self, weak: View, kept: Tensor, progress: Progress
    ) -> list[tuple[View, Tensor]]:
        """``two_strong_views`` with the settings of this method."""
        return two_strong_views(
            weak, kept, progress, kind=self.photometric, rectangle=self.rectangle
        )

    def consistencies(
        self, logits: list[Tensor], views: list[tuple[View, Tensor]], *, weight: float
    ) -> dict[str, Term]:
        """μ_1 · L_s1, μ_2 · L_s2 and λ_fp · L_fp of two strong views and the weak one."""
        names, weights = ("strong_1", "strong_2", "features"), self.strong_weights
        return {
            name: consistency(x, view.targets, kept=kept, weight=weight * own)
            for name, x, (view, kept), own in zip(
                names, logits, views, (*weights, self.feature_weight), strict=True
            )
        }

    def logits(self, network: nn.Module, images: list[Tensor]) -> list[Tensor]:
        """Logits of labelled, weak and strong images; the weak ones' features lose channels."""
        student = cast(Network, network)
        sizes = [len(image) for image in images]
        perturbed = []
        for features in student.features(torch.cat(images)):
            labelled, weak, *strong = torch.split(features, sizes)
            weak = drop_channels(weak, self.dropped)
            perturbed.append(torch.cat([labelled, weak, *strong]))
        height, width = images[0].shape[-2:]
        return list(torch.split(student.decode(*perturbed, size=(height, width)), sizes))
