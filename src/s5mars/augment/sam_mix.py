"""SAM-Mix, section IV-B2: paste one object of a labelled image onto an image of the pool.

The object keeps its position in the image, so that sky does not land on the ground; it is only
rotated, flipped and rescaled about its own centre. Its label is the true label where there is one
and the teacher's prediction on the object's own image elsewhere.

The other sources are the rows of table VIII. They differ in what is cut out and from where; each
pastes one region onto every pool image, at the position it was cut from:

- ``rectangles``: CutMix, from the labelled stream's images, as for objects;
- ``classmix``: half of the classes that the teacher predicts, from the pool's own weak views in
  another order, as ClassMix mixes unlabelled images with each other (Olsson et al., WACV 2021);
- ``dacs``: half of the classes of the true labels, from the labelled stream's images (Tranheden et
  al., WACV 2021). As in the code of the S5Mars authors, the half is rounded down, so that an image
  of one class gives nothing, and pixels without a true label are not pasted. DACS's own code rounds
  up, and counts these pixels as a class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from s5mars.augment.class_mix import class_regions
from s5mars.augment.geometric import object_transforms, rectangles, warp
from s5mars.augment.mix import paste, select
from s5mars.augment.statistics import partners
from s5mars.devices import send
from s5mars.errors import UserError, require_limit
from s5mars.randomness import Generators
from s5mars.types import View

Source = Literal["objects", "rectangles", "classmix", "dacs", "none"]

MINIMUM_PIXELS = 100
"""An object with fewer pixels in the crop is replaced by a rectangle (released code)."""


@dataclass(frozen=True, kw_only=True)
class SamMix:
    """Settings of the paste.

    The paper names rotation, flip and rescaling but gives no ranges: rotation and rescale are this
    project's choice, the probability of a flip is the released code's.

    Args:
        source: Kind of region that is pasted: one of the rows of table VIII.
        rotation: Largest rotation of an object in degrees, in either direction.
        flip: Probability of a horizontal flip of an object.
        rescale: Smallest and largest factor on the size of an object.
        extra_rectangle: Apply CutMix between pool images after the paste, as in the released code.
    """

    source: Source = "objects"
    rotation: float = 20.0
    flip: float = 0.5
    rescale: tuple[float, float] = (0.75, 1.33)
    extra_rectangle: bool = False

    def __post_init__(self) -> None:
        require_limit("at least 0", **{"mix.rotation": self.rotation})
        require_limit("in [0, 1]", **{"mix.flip": self.flip})
        smallest, largest = self.rescale
        if not 0 < smallest <= largest < math.inf:
            raise UserError(
                "mix.rescale must be the smallest and the largest factor, finite and above 0 "
                f"(got {list(self.rescale)})"
            )

    @property
    def donors(self) -> Literal["labelled", "pool", "none"]:
        """The stream that the pasted regions are cut from."""
        if self.source == "none":
            return "none"
        return "pool" if self.source == "classmix" else "labelled"

    def __call__(
        self, pool: View, donors: View | None, objects: Tensor | None, rngs: Generators
    ) -> View:
        """Paste one region onto every pool image: an object, a rectangle, or some classes.

        Args:
            pool: B images and their targets.
            donors: images of the stream ``self.donors`` and their targets; None for ``"none"``.
            objects: (L, H, W) bool, one object per donor, possibly empty; None for other sources.
            rngs: generators of the step, one per pool image.
        """
        size = (pool.image.shape[2], pool.image.shape[3])
        mixed = pool
        if donors is not None:
            chosen = partners(len(pool.image)) % len(donors.image)
            source = select(donors, send(chosen, pool.image.device))
            if self.source in {"classmix", "dacs"}:
                region = self._classes(source, rngs)
            else:
                region = send(rectangles(size, rngs), pool.image.device)
            if self.source == "objects" and objects is not None:
                source, region = self._objects(
                    source, objects[send(chosen, objects.device)], region, rngs
                )
            mixed = paste(region & source.targets.valid, source, pool)
        if self.extra_rectangle:
            other = send(partners(len(pool.image)), pool.image.device)
            region = send(rectangles(size, rngs), pool.image.device)
            mixed = paste(region, select(mixed, other), mixed)
        return mixed

    def _classes(self, source: View, rngs: Generators) -> Tensor:
        targets = source.targets
        label = targets.label if self.source == "dacs" else targets.probability.argmax(1)
        return class_regions(label, targets.valid, generators=rngs)

    def _objects(
        self, source: View, objects: Tensor, fallback: Tensor, rngs: Generators
    ) -> tuple[View, Tensor]:
        theta = object_transforms(
            objects, rngs, rotation=self.rotation, flip=self.flip, rescale=self.rescale
        )
        turned, moved = warp(source, objects, theta=theta)
        moved &= turned.targets.valid
        large = (moved.sum((1, 2)) >= MINIMUM_PIXELS)[:, None, None]
        keep = large.expand_as(moved)
        # Where the rectangle is used, the donor keeps its place: paste chooses per image.
        return paste(keep, turned, source), torch.where(large, moved, fallback)
