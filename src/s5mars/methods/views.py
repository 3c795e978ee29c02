"""Weak views and their targets, shared by the methods that use a teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s5mars.classes import IGNORE
from s5mars.objective.teacher import evaluating
from s5mars.types import Batch, Crops, Progress, Targets, View, as_predicted


def pool_of(batch: Batch) -> Crops:
    """The pool of a batch.

    Raises:
        ValueError: if it has none.
    """
    if batch.pool is None:
        raise ValueError("this method needs the pool stream; the batch has none")
    return batch.pool


@torch.no_grad()
def weak_view(teacher: nn.Module, pool: Crops, progress: Progress) -> View:
    """The unchanged pool images, with targets from the teacher's prediction.

    A network that labels for itself is set to evaluation mode: dropout is off, and batch statistics
    change only once in a step. It gets the bytes of the images, as a frozen encoder caches their
    features.
    """
    with evaluating(teacher):
        probability = teacher(pool.image).softmax(1)
    return View(as_float(pool.image), progress.pseudo_labels(probability, pool))


@torch.no_grad()
def weak_views(
    teacher: nn.Module, pool: Crops, donors: Crops, progress: Progress
) -> tuple[View, View]:
    """``weak_view`` of the pool, and of the labelled images that regions are cut from.

    The teacher sees both in one batch. Its predictions for the donors are not aligned: their
    classes are already as frequent as the labels'.
    """
    images, sizes = torch.cat([pool.image, donors.image]), [len(pool.image), len(donors.image)]
    with evaluating(teacher):
        predictions = torch.split(teacher(images).softmax(1), sizes)
    image, donor_image = torch.split(as_float(images), sizes)
    return (
        View(image, progress.pseudo_labels(predictions[0], pool)),
        View(donor_image, as_predicted(predictions[1], donors)),
    )


def logits_of_both(student: nn.Module, labelled: Crops, strong: View) -> tuple[Tensor, Tensor]:
    """The student's logits of the labelled stream and of a view of the pool, in one batch."""
    logits: Tensor = student(torch.cat([as_float(labelled.image), strong.image]))
    # Not two slices: each gradient would fill a tensor of the whole batch with zeros.
    of_labelled, of_strong = torch.split(logits, [len(labelled.image), len(strong.image)])
    return of_labelled, of_strong


def kept_pixels(targets: Targets, progress: Progress, *, above: float) -> Tensor:
    """(B, H, W) bool: the label is known, or ``progress.keep`` takes the pseudo-label.

    Call this once in a step, so that adaptive thresholds count each pixel once.
    """
    confident = progress.keep(targets.probability, targets.valid, above=above)
    return confident | (targets.valid & (targets.label != IGNORE))


def as_float(image: Tensor) -> Tensor:
    """uint8 → float in [0, 1]; floats pass."""
    return image.float().div_(255) if image.dtype == torch.uint8 else image
