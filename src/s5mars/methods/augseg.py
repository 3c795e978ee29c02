"""AugSeg: random intensities, and labelled patches on images with low confidence.

Zhao et al., CVPR 2023, with an EMA teacher:

    L   = L_x + λ_u · mean over pixels of CE(p_s, argmax p_t)
    ρ_i = mean over pixels of max p_t · (1 − H(p_t) / log C)

    x_i  ← 1 to k = 3 of eleven intensity operations on x_i
    x'_j ← x_j with a patch of a labelled image, at the probability 1 − ρ_j, λ ~ Beta(8, 2)
    x_i  ← x_i with a patch of x'_j of another image j, λ ~ Beta(4, 4)

A patch is a rectangle of side √(1 − λ). Labels are therefore pasted inside CutMix patches.

- λ_u = 1: one released configuration, for Cityscapes, has 2; the others and all logs have 1.
- No threshold, as in the released settings for Cityscapes, the nearest data set (0.95 for VOC). A
  threshold of 0 keeps every pixel, whatever rule the run has (theirs: −0.7). Those settings mine
  hard examples in the supervised loss, which is a setting of the run here (``--ohem``).
- The mean is over the valid pixels; in the code it is over all pixels.
- The released settings for VOC also train on the weak views (``flag_extra_weak``), those for
  Cityscapes do not; neither does this method.
- A labelled patch has its true labels, and pixels without a label do not enter the loss (code).
- Each image has its own λ and centre; the code draws one λ per batch and no centres in the
  first eighth, and takes donors and partners from one permutation; here both are neighbours.
- ρ is taken over the valid pixels.
- True labels of the pool override pseudo-labels and are kept, so that every method gets the same
  information. They do not enter ρ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from s5mars.augment.geometric import rectangles
from s5mars.augment.mix import paste, select
from s5mars.augment.photometric import Photometric, photometric
from s5mars.augment.statistics import partners
from s5mars.classes import IGNORE
from s5mars.devices import send
from s5mars.errors import require_limit
from s5mars.methods.fixmatch import supervised_and_strong
from s5mars.methods.views import as_float, kept_pixels, pool_of, weak_view
from s5mars.randomness import Generators, each
from s5mars.types import Batch, Crops, Needs, Progress, Targets, Term, View


@dataclass(frozen=True, kw_only=True)
class AugSeg:
    """The method, with the constants of its released settings.

    Args:
        unsupervised_weight: Weight λ_u of the unsupervised terms.
        threshold: Confidence above which pseudo-labels are kept; 0 keeps all.
        photometric: Photometric augmentation of the strong view.
        labelled_patches: Paste labelled patches onto images that the teacher is unsure of.
    """

    title: ClassVar[str] = "AugSeg"

    unsupervised_weight: float = 1.0
    threshold: float = 0.0
    photometric: Photometric = "augseg"
    labelled_patches: bool = True

    def __post_init__(self) -> None:
        require_limit("at least 0", unsupervised_weight=self.unsupervised_weight)
        require_limit("at most 1", threshold=self.threshold)

    @property
    def needs(self) -> Needs:
        """A pool and a teacher."""
        return Needs(pool=True, teacher=True)

    def losses(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> dict[str, Term]:
        """Two terms: ``supervised`` and ``strong``."""
        weak = weak_view(teacher, pool_of(batch), progress)
        kept = kept_pixels(weak.targets, progress, above=self.threshold)
        rngs = progress.generators("strong view", len(kept))
        strong, kept = self.strong_view(weak, kept, batch.labelled, rngs)
        return supervised_and_strong(
            student,
            batch.labelled,
            strong,
            progress,
            kept=kept,
            weight=self.unsupervised_weight,
        )

    def strong_view(
        self, weak: View, kept: Tensor, labelled: Crops, rngs: Generators
    ) -> tuple[View, Tensor]:
        """Apply intensities, labelled patches and CutMix; ``kept`` follows its pixels."""
        batch, _, height, width = weak.image.shape
        device = weak.image.device
        image = photometric(weak.image, weak.targets.valid, kind=self.photometric, generators=rngs)
        strong = View(image, weak.targets)

        injected, injected_kept = strong, kept
        if self.labelled_patches:
            donors = labelled_view(labelled, classes=weak.targets.probability.shape[1])
            chosen = send(partners(batch) % len(donors.image), device)
            source = select(donors, chosen)
            chance = send(torch.from_numpy(each(rngs, lambda g: g.random())), device)
            uncertain = chance > confidence(weak.targets)
            region = send(rectangles((height, width), rngs, alpha=8.0, beta=2.0), device)
            region &= uncertain[:, None, None] & source.targets.valid
            injected = paste(region, source, strong)
            injected_kept = torch.where(region, source.targets.label != IGNORE, kept)

        partner = send(partners(batch), device)
        region = send(rectangles((height, width), rngs, beta=4.0), device)
        mixed = paste(region, select(injected, partner), strong)
        return mixed, torch.where(region, injected_kept[partner], kept)


def confidence(targets: Targets) -> Tensor:
    """(B,) ρ in [0, 1] of each image's prediction; 0 without a valid pixel."""
    probability = targets.probability
    entropy = torch.special.entr(probability).sum(1)
    certainty = probability.amax(1) * (1 - entropy / math.log(probability.shape[1]))
    count = targets.valid.sum((1, 2)).clamp(min=1)
    mean: Tensor = certainty.where(targets.valid, 0).sum((1, 2)) / count
    return mean


def labelled_view(labelled: Crops, *, classes: int) -> View:
    """The labelled images and labels as a view; its probabilities are 0."""
    batch, height, width = labelled.label.shape
    nothing = torch.zeros(batch, classes, height, width, device=labelled.image.device)
    return View(
        as_float(labelled.image),
        Targets(probability=nothing, label=labelled.label.long(), valid=labelled.valid),
    )
