"""The types that the packages exchange. Read this file first.

All are frozen dataclasses or protocols. Images are uint8 until the device; masks are bool; class
indices use ``s5mars.classes.IGNORE`` (255) where the class is unknown for any reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from s5mars.classes import IGNORE
from s5mars.randomness import generator, generators

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from s5mars.objective.thresholds import Keep


@dataclass(frozen=True)
class Sample:
    """Paths of one image and its label; no file is opened."""

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
    objects: Tensor | None = None  # (B, H, W) bool, one object proposal per image; may be empty

    def to(self, device: torch.device) -> Crops:
        """The same on a device."""
        given = {name: tensor for name, tensor in vars(self).items() if tensor is not None}
        return Crops(
            **{name: tensor.to(device, non_blocking=True) for name, tensor in given.items()}
        )


@dataclass(frozen=True)
class Batch:
    """Input of a method from the loader: exactly what its ``Needs`` request."""

    labelled: Crops
    pool: Crops | None = None  # images with or without labels; IGNORE where there is none

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(self.labelled.to(device), None if self.pool is None else self.pool.to(device))


@dataclass(frozen=True)
class Targets:
    """Targets of every pixel, which follow the image through geometric steps and pastes."""

    probability: Tensor  # (B, C, H, W) float, the teacher's softmax output
    label: Tensor  # (B, H, W) int64 true label, overrides `probability`; IGNORE where unknown
    valid: Tensor  # (B, H, W) bool

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Probability, label and validity."""
        return self.probability, self.label, self.valid

    @cached_property
    def best(self) -> tuple[Tensor, Tensor]:
        """Two (B, H, W): the largest probability and its class, cached."""
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
    """An input of the student and its targets."""

    image: Tensor  # (B, 3, H, W) float in [0, 1]; statistics exchange may leave that range
    targets: Targets


@dataclass(frozen=True)
class Needs:
    """What a method needs from the loader and the training module."""

    pool: bool = False  # a second stream over every training image, labelled or not
    objects: bool = False  # one object proposal for each image of the labelled stream
    teacher: bool = False  # an exponential moving average of the student
    given_teacher: bool = False  # a network that was trained before and is frozen
    representation: int = 0  # channels of a second head that embeds pixels; 0: none
    queries: bool = False  # a network that proposes masks and classifies them, such as SAN


@dataclass(frozen=True)
class Term:
    """One term of the objective: ``weight * value`` is added to the loss."""

    value: Tensor  # scalar; its mean over the processes is that of the whole batch
    weight: float = 1.0
    share: Tensor | None = None  # scalar in [0, 1]: share of all valid pixels that it uses


class PseudoLabels(Protocol):
    """A rule that makes targets of pool images from the teacher's predictions."""

    def __call__(self, probability: Tensor, pool: Crops) -> Targets:
        """(B, C, H, W) softmax output for B images of the pool → their targets."""
        ...


def as_predicted(probability: Tensor, pool: Crops) -> Targets:
    """The teacher's predictions as targets; true labels override them."""
    return Targets(probability=probability, label=pool.label.long(), valid=pool.valid)


class Criterion(Protocol):
    """The supervised loss of a run."""

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """(B, C, H, W) logits, (B, H, W) labels with IGNORE → scalar."""
        ...


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a run, and the settings that all methods share.

    It is the only source of randomness in a step.
    """

    seed: int
    step: int  # counted from 0
    total: int
    # Factor on unsupervised terms: --unsupervised times the ramp; above 0 where a method with a
    # pool is called.
    ramp: float
    first: int  # index of this process's first image in the batch of all processes
    pool_from: int  # first step after the warm-up, from which on batches hold the pool
    criterion: Criterion  # of labelled images
    pseudo_labels: PseudoLabels  # aligned if the run uses alignment
    keep: Keep  # which pseudo-labels count, see ``objective/thresholds.py``

    @property
    def share(self) -> float:
        """Elapsed share of the steps that use the pool, in [0, 1)."""
        return (self.step - self.pool_from) / (self.total - self.pool_from)

    def generator(self, purpose: str) -> np.random.Generator:
        """A generator for the whole batch: a pure function of (seed, step, purpose)."""
        return generator(self.seed, purpose, step=self.step)

    def generators(self, purpose: str, size: int) -> list[np.random.Generator]:
        """One generator for each image k: a pure function of (seed, step, k, purpose).

        Args:
            purpose: what is drawn, and for which stream if there are several.
            size: number of images of the stream in this process; k counts over all processes.
        """
        samples = range(self.first, self.first + size)
        return generators(self.seed, purpose, step=self.step, samples=samples)


class Method(Protocol):
    """A method, such as a row of table III: one file in ``methods/``, one line in its dict."""

    title: ClassVar[str]  # name in tables and reports

    @property
    def needs(self) -> Needs:
        """What the loader must build."""
        ...

    def losses(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, progress: Progress
    ) -> dict[str, Term]:
        """The terms of the objective on one batch; keys name them in logs and reports.

        A method that needs the pool is not called in the warm-up, where the step uses the
        supervised loss.
        """
        ...
