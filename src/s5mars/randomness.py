"""Counter-based randomness: every draw is a pure function of what it is for.

Nothing here has a state that a worker, a process or a resumed run could get out of step with.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Generators = Sequence[np.random.Generator]
"""One for each image of a batch: what one image draws changes no other's draw."""


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
    """One generator for each of these samples of the step's batch."""
    return [generator(seed, purpose, step=step, sample=k) for k in samples]


def each(generators: Generators, draw: Callable[[np.random.Generator], object]) -> NDArray[Any]:
    """(B, ...) what ``draw`` gives for each image."""
    return np.stack([np.asarray(draw(g)) for g in generators])


def integer_seed(seed: int, purpose: str, *, step: int = 0, sample: int = 0) -> int:
    """A 63-bit seed for libraries that keep their own generator."""
    return int(generator(seed, purpose, step=step, sample=sample).integers(2**63 - 1))
