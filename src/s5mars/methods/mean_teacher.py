"""Mean Teacher: predictions for two noisy copies of an image agree; the row MT of table III.

Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017:

    J(θ) = E_{x, η', η} ‖ f(x, θ', η') − f(x, θ, η) ‖²          (their section 2)
    θ'   ← α θ' + (1 − α) θ                                     in ``objective/teacher.py``
    L    = L_sup + λ · ramp · J

η is Gaussian noise on the input and dropout, drawn separately for student and teacher; f is the
softmax output. Like their code, J is the squared error averaged over classes, and over pixels. As
in the paper J includes all images, labelled or not, and L_sup uses the noisy labelled images, too.

Interpretations for segmentation, and choices of this project:

- λ = 10. The paper's is 100, for images of one class each; with it the labels had little effect in
  the runs on two images of ``tests/methods/test_training.py``. The S5Mars paper tuned it and does
  not give the value; it was not tuned on rover images here.
- The standard deviation of the noise is 0.01 of an image in [0, 1]. That of the paper's CIFAR-10
  runs, 0.15 of a normalised channel, is 0.034 with the usual deviation of a channel, 0.226. It
  drowns the texture of Navcam images, so that a network that is trained on noisy images alone fails
  on images without noise (docs/experiments.md).
- The ramp has the paper's form, but spans ``--ramp`` of the run after the warm-up instead of 80
  epochs; the warm-up has no noise.
- The teacher uses dropout, but its batch statistics are the averaged ones, as for every method
  here; the authors' teacher normalises by the batch.
- A pool pixel whose label is known is compared with that label, as in every method here. The paper
  does not do this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5mars.classes import IGNORE
from s5mars.errors import require_limit
from s5mars.methods.views import as_float, pool_of
from s5mars.objective.losses import masked_mean
from s5mars.objective.teacher import restoring_modes
from s5mars.types import Batch, Needs, Progress, Targets, Term

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


@dataclass(frozen=True, kw_only=True)
class MeanTeacher:
    """The method.

    Args:
        unsupervised_weight: Weight λ of the squared error.
        noise: Standard deviation of the noise on images in [0, 1].
        teacher_dropout: Use dropout in the teacher, too.
    """

    title: ClassVar[str] = "Mean Teacher"

    unsupervised_weight: float = 10.0
    noise: float = 0.01
    teacher_dropout: bool = True

    def __post_init__(self) -> None:
        require_limit("at least 0", unsupervised_weight=self.unsupervised_weight, noise=self.noise)

    @property
    def needs(self) -> Needs:
        """A pool and a teacher."""
        return Needs(pool=True, teacher=True)

    def losses(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> dict[str, Term]:
        """Two terms: ``supervised`` and ``consistency``."""
        labelled, pool = batch.labelled, pool_of(batch)
        valid = torch.cat([labelled.valid, pool.valid])

        noisy = self.noisy(batch, progress, "teacher")
        draws = dropout(teacher, active=self.teacher_dropout)
        with torch.no_grad(), draws:
            of_labelled, of_pool = torch.split(
                teacher(noisy).softmax(1), [len(labelled.image), len(pool.image)]
            )
            of_pool = one_hot_where_labelled(progress.pseudo_labels(of_pool, pool))
        logits = student(self.noisy(batch, progress, "student"))

        error = (logits.softmax(1) - torch.cat([of_labelled, of_pool])).square().mean(1)
        return {
            "supervised": Term(progress.criterion(logits[: len(labelled.image)], labelled.label)),
            "consistency": Term(
                masked_mean(error, valid, valid, over="valid"),
                weight=self.unsupervised_weight * progress.ramp,
            ),
        }

    def noisy(self, batch: Batch, progress: Progress, network: str) -> Tensor:
        """Both streams with independent noise η for each image; the result is not clipped."""
        noisy = []
        for stream, crops in (("labelled", batch.labelled), ("pool", pool_of(batch))):
            image = as_float(crops.image)
            # The device's own generator: a batch has millions of numbers.
            device = torch.Generator(image.device)
            drawn = torch.empty_like(image)
            for one, rng in zip(
                drawn, progress.generators(f"noise: {network}, {stream}", len(image)), strict=True
            ):
                one.normal_(generator=device.manual_seed(int(rng.integers(2**63 - 1))))
            noisy.append(image + self.noise * drawn)
        return torch.cat(noisy)


def one_hot_where_labelled(targets: Targets) -> Tensor:
    """(B, C, H, W) the targets' probabilities, one-hot where the true label is known."""
    known = targets.label != IGNORE
    certain = F.one_hot(targets.label.where(known, 0), targets.probability.shape[1]).movedim(-1, 1)
    return certain.to(targets.probability.dtype).where(known.unsqueeze(1), targets.probability)


@contextmanager
def dropout(network: nn.Module, *, active: bool) -> Iterator[None]:
    """Set only the dropout layers of a network to training mode."""
    with restoring_modes(network):
        for layer in network.modules():
            if active and isinstance(layer, DROPOUT):
                layer.train()
        yield
