"""Which image is sample k of step t: a pure function, so nothing needs to be stored or resumed."""

from __future__ import annotations

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
