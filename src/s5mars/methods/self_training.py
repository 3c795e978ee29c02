"""Self-training (ST++): a frozen network labels the pool, and a new one learns from strong views.

Yang et al., "ST++: Make Self-training Work Better for Semi-supervised Semantic Segmentation",
CVPR 2022:

    L   = L_x + λ_u · L_u
    L_u = mean over pixels of CE(p_s, argmax p_t)

with p_s the student's prediction for the strong view, which has changed colours and, with
probability 0.5, an erased rectangle. p_t is the prediction of a frozen network that was trained
before. ``training/stages.py`` trains it, in three stages: one network learns from labels alone; one
from labels and the half of the pool on which three checkpoints of the first agree most, labelled by
the first; and one from labels and the whole pool, labelled by the second. The last one is scored.

- No threshold, no moving average (paper and code). Erased pixels do not enter the loss (code).
- The labels are computed in the step, for the crop of the weak view, in one pass; the code labels
  whole images once, with five scales and mirror images.
- In the last stage the second network labels the whole pool; in the code the half that was reliable
  keeps the labels of the first network.
- Labelled and pool images come in equal numbers, as L_x + λ_u · L_u with λ_u = 1; the code mixes
  them in one loss, with the labelled images repeated until there are about as many of them.
- Each stage has a third of the steps, so that a run is as long as that of any other method; the
  authors train each stage in full.
- The pool contains labelled images, too. Their true labels override pseudo-labels, so that every
  method gets the same information, and they are ranked with the others.
- The recipes set no warm-up and no ramp for this method, because its pool is labelled by a network
  that has been trained. Alignment applies as to every method, if it is enabled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from s5mars.augment.geometric import inner_rectangles
from s5mars.augment.photometric import Photometric, photometric
from s5mars.devices import send
from s5mars.errors import require_limit
from s5mars.methods.fixmatch import supervised_and_strong
from s5mars.methods.views import pool_of, weak_view
from s5mars.randomness import Generators, each
from s5mars.types import Batch, Needs, Progress, Term, View


@dataclass(frozen=True, kw_only=True)
class SelfTraining:
    """The method, with the constants of its released code.

    Args:
        unsupervised_weight: Weight λ_u of the unsupervised term.
        photometric: Photometric augmentation of the strong view.
        erased: Probability that a rectangle of the strong view becomes noise.
    """

    title: ClassVar[str] = "Self-training (ST++)"

    unsupervised_weight: float = 1.0
    photometric: Photometric = "fixmatch"
    erased: float = 0.5

    def __post_init__(self) -> None:
        require_limit("at least 0", unsupervised_weight=self.unsupervised_weight)
        require_limit("in [0, 1]", erased=self.erased)

    @property
    def needs(self) -> Needs:
        """A pool, and a network that labels it."""
        return Needs(pool=True, given_teacher=True)

    def losses(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> dict[str, Term]:
        """Two terms: ``supervised`` and ``strong``."""
        weak = weak_view(teacher, pool_of(batch), progress)
        rngs = progress.generators("strong view", len(weak.image))
        image = photometric(weak.image, weak.targets.valid, kind=self.photometric, generators=rngs)
        strong = erase(View(image, weak.targets), rngs, probability=self.erased)
        return supervised_and_strong(
            student,
            batch.labelled,
            strong,
            progress,
            kept=strong.targets.valid,
            weight=self.unsupervised_weight,
        )


def erase(view: View, rngs: Generators, *, probability: float) -> View:
    """Fill a rectangle of some images with noise, and exclude its pixels from the loss."""
    height, width = view.image.shape[2:]
    region = send(
        inner_rectangles((height, width), rngs, probability=probability), view.image.device
    )

    def uniform(generator: np.random.Generator) -> NDArray[np.float32]:
        return generator.random((3, height, width), np.float32)

    noise = send(torch.from_numpy(each(rngs, uniform)), view.image.device).to(view.image.dtype)
    valid: Tensor = view.targets.valid
    image = torch.where((region & valid).unsqueeze(1), noise, view.image)
    return View(image, replace(view.targets, valid=valid & ~region))
