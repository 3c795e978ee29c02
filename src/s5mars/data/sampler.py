"""Which image is sample k of step t: a pure function, so nothing needs to be stored or resumed.

Images come by turns, or as those that show a class drawn evenly. The second is nnU-Net's cure for
rare classes (Isensee et al., Nature Methods 2021, its oversampling of foreground): a share of the
crops is cut around a pixel of such a class. DAFormer (Hoyer et al., CVPR 2022) names why it is
needed: a class that comes late in training is learned late, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from s5mars.randomness import generator


def image_index(seed: int, stream: str, *, position: int, size: int) -> int:
    """The image at one position of an endless stream over ``size`` images.

    The stream is a concatenation of permutations: every image comes once an epoch, in another
    order each time, and a batch may cross from one epoch to the next, so that no image is dropped
    and a set smaller than the batch works.
    """
    epoch, offset = divmod(position, size)
    return int(_order(seed, stream, epoch, size)[offset])


@lru_cache(maxsize=8)
def _order(seed: int, stream: str, epoch: int, size: int) -> NDArray[np.int64]:
    return generator(seed, f"order of {stream}", step=epoch).permutation(size)


@dataclass(frozen=True)
class Balance:
    """Which share of a stream's crops is drawn class by class, and who shows which class."""

    share: float
    holders: tuple[tuple[int, ...], ...]  # class → images that show it; empty: none does

    @classmethod
    def of(cls, areas: NDArray[np.number], *, share: float) -> Balance:
        """From (N, C) areas of each class in each image."""
        return cls(share, tuple(tuple(np.flatnonzero(column).tolist()) for column in areas.T))

    def draw(self, rng: np.random.Generator) -> tuple[int, int] | None:
        """A class and an image that shows it, each drawn evenly; None for the other crops."""
        if rng.random() >= self.share:
            return None
        shown = [index for index, images in enumerate(self.holders) if images]
        if not shown:
            return None
        chosen = _one_of(shown, rng)
        return chosen, _one_of(self.holders[chosen], rng)


def _one_of(choices: Sequence[int], rng: np.random.Generator) -> int:
    return choices[int(rng.integers(len(choices)))]
