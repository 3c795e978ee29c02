"""Chooses the image of sample k of step t by a pure function, so that no state is stored.

Images are drawn in permutations, or by class. Drawing by class is how nnU-Net treats rare classes
(Isensee et al., Nature Methods 2021, oversampling of foreground): a share of the crops is cut
around a pixel of a drawn class. DAFormer (Hoyer et al., CVPR 2022) explains why it helps: a class
that appears late in training is learned late or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from s5mars.randomness import generator


def image_index(seed: int, stream: str, *, position: int, size: int) -> int:
    """Index of the image at a position of an endless stream over ``size`` images.

    The stream is a concatenation of permutations: every image appears once per epoch, in a new
    order. A batch may contain the end of one epoch and the start of the next, so no image is
    dropped, and a set smaller than the batch works.
    """
    epoch, offset = divmod(position, size)
    return int(_order(seed, stream, epoch, size)[offset])


@lru_cache(maxsize=8)
def _order(seed: int, stream: str, epoch: int, size: int) -> NDArray[np.int64]:
    return generator(seed, f"order of {stream}", step=epoch).permutation(size)


@dataclass(frozen=True)
class Balance:
    """The share of crops that is drawn by class, and the images of each class."""

    share: float
    holders: tuple[tuple[int, ...], ...]  # class → images that show it

    @classmethod
    def of(cls, areas: NDArray[np.number], *, share: float) -> Balance:
        """Create from areas (N, C) of each class in each image."""
        return cls(share, tuple(tuple(np.flatnonzero(column).tolist()) for column in areas.T))

    def draw(self, rng: np.random.Generator) -> tuple[int, int] | None:
        """Draw a class and an image that shows it, each uniformly; None for the other crops."""
        if rng.random() >= self.share:
            return None
        shown = [index for index, images in enumerate(self.holders) if images]
        if not shown:
            return None
        chosen = _one_of(shown, rng)
        return chosen, _one_of(self.holders[chosen], rng)


def _one_of(choices: Sequence[int], rng: np.random.Generator) -> int:
    return choices[int(rng.integers(len(choices)))]
