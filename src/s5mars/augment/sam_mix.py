"""SAM-Mix, section IV-B2: paste one object of a labelled image on an image of the pool.

The object keeps its position in the image, so that sky does not land on the ground; it is only
turned, mirrored and rescaled about its own centre. Its label is the true label where there is one
and the teacher's prediction on the object's own image elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from s5mars.augment.geometric import object_transforms, rectangles, warp
from s5mars.augment.mix import paste, select
from s5mars.augment.statistics import partners
from s5mars.types import View

MINIMUM_PIXELS = 100
"""An object with fewer pixels in the crop is replaced by a rectangle (released code)."""


@dataclass(frozen=True, kw_only=True)
class SamMix:
    """Settings of the paste.

    The paper names rotation, flip and rescaling but gives no ranges; rotation and rescale are this
    project's choice, the flip's probability is the released code's.
    """

    source: Literal["objects", "rectangles", "none"] = "objects"
    rotation: float = 20.0  # degrees, either way
    flip: float = 0.5
    rescale: tuple[float, float] = (0.75, 1.33)
    extra_rectangle: bool = False  # a CutMix between pool images after the paste (released code)

    def __call__(
        self, pool: View, donors: View | None, objects: Tensor | None, rng: np.random.Generator
    ) -> View:
        """Paste one object, or a rectangle where there is none, on every pool image.

        Args:
            pool: B images and their targets.
            donors: the labelled stream's images and their targets; None for ``source="none"``.
            objects: (L, H, W) bool, one object a donor, possibly empty.
            rng: the step's generator.
        """
        size = (pool.image.shape[2], pool.image.shape[3])
        mixed = pool
        if donors is not None:
            chosen = partners(len(pool.image), rng) % len(donors.image)
            source = select(donors, chosen.to(pool.image.device))
            region = rectangles(len(pool.image), size, rng).to(pool.image.device)
            if self.source == "objects" and objects is not None:
                source, region = self._objects(
                    source, objects[chosen.to(objects.device)], region, rng
                )
            mixed = paste(region & source.targets.valid, source, pool)
        if self.extra_rectangle:
            other = partners(len(pool.image), rng).to(pool.image.device)
            region = rectangles(len(pool.image), size, rng).to(pool.image.device)
            mixed = paste(region, select(mixed, other), mixed)
        return mixed

    def _objects(
        self, source: View, objects: Tensor, fallback: Tensor, rng: np.random.Generator
    ) -> tuple[View, Tensor]:
        theta = object_transforms(
            objects, rng, rotation=self.rotation, flip=self.flip, rescale=self.rescale
        )
        turned, moved = warp(source, objects, theta=theta)
        moved &= turned.targets.valid
        large = (moved.sum((1, 2)) >= MINIMUM_PIXELS)[:, None, None]
        keep = large.expand_as(moved)
        # Where the rectangle is used the donor must not be turned: a second select by paste.
        return paste(keep, turned, source), torch.where(large, moved, fallback)
