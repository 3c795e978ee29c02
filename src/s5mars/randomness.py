"""Counter-based randomness: every draw is a pure function of what it is for.

Nothing here has a state that a worker, a process or a resumed run could get out of step with.
"""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, purpose: str, *, step: int = 0, sample: int = 0) -> np.random.Generator:
    """A generator keyed by (seed, purpose, step, sample); equal keys give equal draws.

    Philox is a counter-based generator (Salmon et al., SC 2011): the key and the counter are
    the state, so nothing needs to be stored or advanced between steps.
    """
    key = (seed % 2**64) ^ (zlib.crc32(purpose.encode()) << 64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, sample, step, 0]))


def integer_seed(seed: int, purpose: str, *, step: int = 0, sample: int = 0) -> int:
    """A 63-bit seed for libraries that keep their own generator."""
    return int(generator(seed, purpose, step=step, sample=sample).integers(2**63 - 1))
