"""Pasting: a pure function of a region and two views."""

from __future__ import annotations

import torch
from torch import Tensor

from s5mars.types import Targets, View


def paste(region: Tensor, a: View, b: View) -> View:
    """``a`` inside the region, ``b`` outside, for pixels and targets.

    Args:
        region: (B, H, W) bool.
        a: the source, such as an image with an object.
        b: the target image.
    """
    wide = region.unsqueeze(1)
    return View(
        image=torch.where(wide, a.image, b.image),
        targets=Targets(
            probability=torch.where(wide, a.targets.probability, b.targets.probability),
            label=torch.where(region, a.targets.label, b.targets.label),
            valid=torch.where(region, a.targets.valid, b.targets.valid),
        ),
    )


def select(view: View, index: Tensor) -> View:
    """The images and targets of a view at an index."""
    return View(view.image[index], Targets(*(x[index] for x in view.targets.tensors)))
