"""UniMatch V2: two strong views that each see half of the feature channels, and an EMA teacher.

Yang et al., "UniMatch V2: Pushing the Limit of Semi-Supervised Semantic Segmentation", TPAMI 2025:

    L   = L_x + λ_u · (L_s1 + L_s2) / 2
    L_s = mean over pixels of 1(max p_t > τ) · CE(p_s, argmax p_t)
    s1  = decode(2 M ⊙ features(x_1)),  s2 = decode(2 (1 − M) ⊙ features(x_2)),  M ~ Bernoulli(1/2)

with x_1 and x_2 the strong views of ``unimatch.py``, each with its own colours and CutMix. M is
drawn by channel, and half of the images keep all of their channels. The labels p_t are those of the
moving average in ``objective/teacher.py`` on the weak view; the moving average is also scored.

- τ = 0.95, λ_u = 1. The published loss is half of this sum, as that of UniMatch.
- The mean is over the valid pixels, kept or not (paper and code).
- The feature maps of a transformer share one M (paper and code); those of a convolutional encoder,
  which differ in channels, each have their own.
- Whether an image keeps all of its channels is drawn image by image; the code takes exactly half of
  a batch.
- Labelled and strong images pass the encoder in one batch; the code uses two. The code's decoder
  has no batch normalisation; a decoder that has it here normalises labelled and dropped features
  together.
- True labels of the pool override pseudo-labels and are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from s5mars.augment.photometric import Photometric
from s5mars.devices import send
from s5mars.errors import require_limit
from s5mars.methods.fixmatch import consistency, two_strong_views
from s5mars.methods.views import as_float, kept_pixels, pool_of, weak_view
from s5mars.models.network import Network
from s5mars.randomness import Generators, each
from s5mars.types import Batch, Needs, Progress, Term


@dataclass(frozen=True, kw_only=True)
class UniMatchV2:
    """The method, with the constants of its paper.

    Args:
        unsupervised_weight: Weight λ_u of the mean of the two strong views.
        threshold: Confidence τ above which pseudo-labels are kept.
        undropped: Share of the images whose features keep all channels.
        photometric: Photometric augmentation of the strong views.
        rectangle: Probability of a CutMix rectangle.
    """

    title: ClassVar[str] = "UniMatch V2"

    unsupervised_weight: float = 1.0
    threshold: float = 0.95
    undropped: float = 0.5
    photometric: Photometric = "fixmatch"
    rectangle: float = 0.5

    def __post_init__(self) -> None:
        require_limit("at least 0", unsupervised_weight=self.unsupervised_weight)
        require_limit("in [0, 1]", undropped=self.undropped, rectangle=self.rectangle)
        require_limit("at most 1", threshold=self.threshold)

    @property
    def needs(self) -> Needs:
        """A pool and a teacher."""
        return Needs(pool=True, teacher=True)

    def losses(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> dict[str, Term]:
        """``supervised``, ``strong_1`` and ``strong_2``."""
        weak = weak_view(teacher, pool_of(batch), progress)
        kept = kept_pixels(weak.targets, progress, above=self.threshold)
        (first, kept_1), (second, kept_2) = two_strong_views(
            weak, kept, progress, kind=self.photometric, rectangle=self.rectangle
        )
        labelled = batch.labelled
        logits, logits_1, logits_2 = self.logits(
            cast(Network, student),
            [as_float(labelled.image), first.image, second.image],
            progress.generators("complementary channels", len(kept)),
        )
        weight = self.unsupervised_weight * progress.ramp / 2
        return {
            "supervised": Term(progress.criterion(logits, labelled.label)),
            "strong_1": consistency(logits_1, first.targets, kept=kept_1, weight=weight),
            "strong_2": consistency(logits_2, second.targets, kept=kept_2, weight=weight),
        }

    def logits(
        self, student: Network, images: list[Tensor], rngs: Generators
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of labelled and strong images; the latter's channels complement each other."""
        sizes = [len(image) for image in images]
        whole = each(rngs, lambda g: g.random()) < self.undropped
        perturbed = []
        masks: dict[int, NDArray[Any]] = {}  # by number of channels
        for features in student.features(torch.cat(images)):
            labelled, first, second = torch.split(features, sizes)
            channels = features.shape[1]
            if channels not in masks:
                masks[channels] = 2.0 * (each(rngs, partial(_uniform, size=channels)) < 0.5)
                masks[channels][whole] = 1.0
            mask = masks[channels]
            factor = send(torch.from_numpy(mask), features.device).to(features.dtype)
            factor = factor[:, :, None, None]
            perturbed.append(torch.cat([labelled, first * factor, second * (2 - factor)]))
        height, width = images[0].shape[-2:]
        decoded = student.decode(*perturbed, size=(height, width))
        of_labelled, of_first, of_second = torch.split(decoded, sizes)
        return of_labelled, of_first, of_second


def _uniform(generator: np.random.Generator, *, size: int) -> NDArray[Any]:
    return generator.random(size)
