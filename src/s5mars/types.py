"""The seams: what passes between the rooms. Read this file first.

Everything is a frozen dataclass. Images are uint8 until the device; masks are bool; class indices
use ``s5mars.classes.IGNORE`` (255) for "nobody knows", whatever the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from s5mars.classes import IGNORE
from s5mars.objective.losses import cross_entropy
from s5mars.objective.thresholds import Keep, above_threshold
from s5mars.randomness import generator, generators

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


@dataclass(frozen=True)
class Sample:
    """Where one image and its label lie. Nothing is opened to make one."""

    name: str  # unique in its data set: the path below the image folder, without the ending
    image: Path
    mask: Path | None = None  # None: no label exists
    hide: tuple[Path, ...] = ()  # masks whose nonzero pixels are ignored (rover, beyond range)


@dataclass(frozen=True)
class Crops:
    """One stream of a batch, after geometry (weak augmentation), before photometry and mixing."""

    image: Tensor  # (B, 3, H, W) uint8, RGB
    label: Tensor  # (B, H, W) uint8 class index or IGNORE
    valid: Tensor  # (B, H, W) bool, False on padding and on no-data borders
    objects: Tensor | None = None  # (B, H, W) bool, one object proposal an image; may be empty


@dataclass(frozen=True)
class Batch:
    """What the loader hands to a method: exactly what the method's ``Needs`` ask for."""

    labelled: Crops
    pool: Crops | None = None  # images with or without labels; IGNORE where there is none


@dataclass(frozen=True)
class Targets:
    """What a pixel should be; travels with its image through every geometric step and paste."""

    probability: Tensor  # (B, C, H, W) float, the teacher's softmax output
    label: Tensor  # (B, H, W) int64 true label, overrides `probability`; IGNORE where unknown
    valid: Tensor  # (B, H, W) bool

    @cached_property
    def best(self) -> tuple[Tensor, Tensor]:
        """Two (B, H, W): the largest probability and its class, found in one pass and kept."""
        confidence, label = self.probability.max(1)
        return confidence, label

    @property
    def confidence(self) -> Tensor:
        """(B, H, W) float: 1 where the true label is known, else the largest probability."""
        return self.best[0].masked_fill(self.label != IGNORE, 1.0)

    @property
    def hard(self) -> Tensor:
        """(B, H, W) int64: the true label where it is known, else the pseudo-label, eq. 4."""
        return self.best[1].where(self.label == IGNORE, self.label)


@dataclass(frozen=True)
class View:
    """An image that the student will see, and its targets."""

    image: Tensor  # (B, 3, H, W) float in [0, 1]; statistics exchange may leave that range
    targets: Targets


@dataclass(frozen=True)
class Needs:
    """What a method asks of the loader and of the training module."""

    pool: bool = False  # a second stream over every training image, labelled or not
    objects: bool = False  # one object proposal for each image of the labelled stream
    teacher: bool = False  # an exponential moving average of the student
    given_teacher: bool = False  # a network that was trained before, and stays as it is
    representation: int = 0  # channels of a second head that embeds pixels; 0: none
    queries: bool = False  # a network that proposes masks and names each of them, such as SAN


@dataclass(frozen=True)
class Term:
    """One term of the objective: ``weight * value`` is added to the loss."""

    value: Tensor  # scalar; its mean over the processes is that of the whole batch
    weight: float = 1.0
    share: Tensor | None = None  # scalar in [0, 1]: share of the valid pixels that it sees, of all


class PseudoLabels(Protocol):
    """Makes the targets of pool images from what the teacher says of them."""

    def __call__(self, probability: Tensor, pool: Crops) -> Targets:
        """(B, C, H, W) softmax output for B images of the pool → their targets."""
        ...


def as_predicted(probability: Tensor, pool: Crops) -> Targets:
    """Targets that believe the teacher; true labels override it where there are any."""
    return Targets(probability=probability, label=pool.label.long(), valid=pool.valid)


class Criterion(Protocol):
    """The supervised loss of a run."""

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """(B, C, H, W) logits, (B, H, W) labels with IGNORE → scalar."""
        ...


@dataclass(frozen=True)
class Progress:
    """Where a run stands, and what its settings give to every method alike.

    The only source of randomness in a step.
    """

    seed: int
    step: int  # counted from 0
    total: int
    ramp: float = 1.0  # factor on unsupervised terms, above 0
    first: int = 0  # place of this process's first image in the batch of all processes
    pool_from: int = 0  # first step whose batch holds the pool: not in a warm-up
    criterion: Criterion = cross_entropy  # of labelled images
    pseudo_labels: PseudoLabels = as_predicted  # aligned, where a run asks for it
    keep: Keep = above_threshold  # which pseudo-labels count, see ``objective/thresholds.py``

    @property
    def share(self) -> float:
        """How much of the part of the run that uses the pool is over, in [0, 1)."""
        return (self.step - self.pool_from) / (self.total - self.pool_from)

    def generator(self, purpose: str) -> np.random.Generator:
        """For what the whole batch shares: a pure function of (seed, step, purpose)."""
        return generator(self.seed, purpose, step=self.step)

    def generators(self, purpose: str, size: int) -> list[np.random.Generator]:
        """One for each image k of a stream: a pure function of (seed, step, k, purpose).

        Args:
            purpose: what is drawn, and for which stream if there are more than one.
            size: images of the stream in this process; k counts over all processes.
        """
        samples = range(self.first, self.first + size)
        return generators(self.seed, purpose, step=self.step, samples=samples)


class Method(Protocol):
    """A row of table III: one file in ``methods/``, one line in its dict."""

    title: ClassVar[str]  # as tables and reports name it

    @property
    def needs(self) -> Needs:
        """What the loader must build."""
        ...

    def losses(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> dict[str, Term]:
        """The terms of the objective on one batch; keys name them in logs and reports.

        A method that needs the pool is asked only while the batch has one: in a warm-up the step
        takes the supervised loss.
        """
        ...
