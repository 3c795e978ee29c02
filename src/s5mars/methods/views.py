"""What the teacher says about weak views, shared by the methods that ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from s5mars.alignment import counting
from s5mars.classes import IGNORE
from s5mars.teacher import evaluating
from s5mars.types import Batch, Crops, Progress, Targets, View


def pool_of(batch: Batch) -> Crops:
    """The pool of a batch.

    Raises:
        ValueError: if it has none.
    """
    if batch.pool is None:
        raise ValueError("this method needs the pool stream; the batch has none")
    return batch.pool


@torch.no_grad()
def weak_views(teacher: nn.Module, crops: Sequence[Crops]) -> list[View]:
    """Label one or more streams, seen by the teacher in one batch and in evaluation mode.

    A shared network that labels for itself is in training mode: its dropout rests then, and its
    batch statistics move once a step.
    """
    images = as_float(torch.cat([c.image for c in crops]))
    with evaluating(teacher), counting(teacher, torch.cat([c.valid for c in crops])):
        return as_views(images, teacher(images).softmax(1), crops)


def weak_view(teacher: nn.Module, pool: Crops, *, true_labels: bool) -> View:
    """The pool as it is and the teacher's answer, with or without its true labels."""
    (weak,) = weak_views(teacher, [pool])
    return weak if true_labels else without_labels(weak)


def as_views(images: Tensor, probability: Tensor, crops: Sequence[Crops]) -> list[View]:
    """Cut joined streams, and the teacher's answer to them, apart again.

    Args:
        images: (ΣB, 3, H, W) float in [0, 1], the streams one after the other.
        probability: (ΣB, C, H, W) float.
        crops: the streams.
    """
    sizes = [len(c.image) for c in crops]
    return [
        View(image, Targets(probability=p, label=c.label.long(), valid=c.valid))
        for image, p, c in zip(
            torch.split(images, sizes), torch.split(probability, sizes), crops, strict=True
        )
    ]


def without_labels(view: View) -> View:
    """The same view when nobody knows a true label."""
    label = torch.full_like(view.targets.label, IGNORE)
    return replace(view, targets=replace(view.targets, label=label))


def logits_of_both(student: nn.Module, labelled: Crops, strong: View) -> tuple[Tensor, Tensor]:
    """The student's logits of the labelled stream and of a view of the pool, in one batch."""
    logits: Tensor = student(torch.cat([as_float(labelled.image), strong.image]))
    # Not two slices, whose gradients would each fill a tensor of the whole batch with zeros.
    of_labelled, of_strong = torch.split(logits, [len(labelled.image), len(strong.image)])
    return of_labelled, of_strong


def kept_pixels(targets: Targets, progress: Progress, *, above: float) -> Tensor:
    """(B, H, W) bool: the label is known, or ``progress.keep`` takes the pseudo-label.

    To be asked once a step: thresholds that follow the predictions then see each pixel once.
    """
    sure = progress.keep(targets.probability, targets.valid, above=above)
    return sure | (targets.valid & (targets.label != IGNORE))


def as_float(image: Tensor) -> Tensor:
    """uint8 → float in [0, 1]; floats pass."""
    return image.float().div_(255) if image.dtype == torch.uint8 else image
