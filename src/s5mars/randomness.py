"""Counter-based randomness: every draw is a pure function of its key.

There is no state, so workers, processes and resumed runs always agree.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Generators = Sequence[np.random.Generator]
"""One generator for each image of a batch, so that the draws of images are independent."""


def generator(seed: int, purpose: str, *, step: int = 0, sample: int = 0) -> np.random.Generator:
    """A generator keyed by (seed, purpose, step, sample); equal keys give equal draws.

    Philox is a counter-based generator (Salmon et al., SC 2011): the key and the counter are
    the state, so nothing needs to be stored or advanced between steps.
    """
    key = (seed % 2**64) ^ (zlib.crc32(purpose.encode()) << 64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, sample, step, 0]))


def generators(
    seed: int, purpose: str, *, step: int = 0, samples: range
) -> list[np.random.Generator]:
    """One generator for each of these samples of a step."""
    return [generator(seed, purpose, step=step, sample=k) for k in samples]


def each(generators: Generators, draw: Callable[[np.random.Generator], object]) -> NDArray[Any]:
    """(B, ...) the results of ``draw`` with the generator of each image."""
    return np.stack([np.asarray(draw(g)) for g in generators])


def integer_seed(seed: int, purpose: str, *, step: int = 0, sample: int = 0) -> int:
    """A 63-bit seed for libraries that keep their own generator."""
    return int(generator(seed, purpose, step=step, sample=sample).integers(2**63 - 1))
