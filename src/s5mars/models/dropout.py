"""Channel dropout with separate random numbers for each image.

torch draws for the whole batch from one generator, so the result for an image depends on its
position and process. Within ``drawing`` it depends on (seed, step, image) only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5mars.randomness import Generators, each
from s5mars.types import Progress


@dataclass
class _Draws:
    """The generators of one step, for successive calls."""

    progress: Progress
    size: int
    calls: int = 0

    def next(self, rows: int) -> Generators:
        """Generators for a batch of concatenated streams."""
        self.calls += 1
        streams = -(-rows // self.size)
        drawn = [
            rng
            for stream in range(streams)
            for rng in self.progress.generators(f"dropout {self.calls}, stream {stream}", self.size)
        ]
        return drawn[:rows]


_draws: ContextVar[_Draws | None] = ContextVar("draws", default=None)


@contextmanager
def drawing(progress: Progress, size: int) -> Iterator[None]:
    """Draw dropout for the step of ``progress``, with ``size`` images per stream here."""
    token = _draws.set(_Draws(progress, size))
    try:
        yield
    finally:
        _draws.reset(token)


def drop_channels(x: Tensor, probability: float) -> Tensor:
    """Zero channels of (B, C, H, W) with a probability in [0, 1), and scale the others up.

    Outside ``drawing`` this is torch's ``dropout2d``.
    """
    draws = _draws.get()
    if draws is None:
        return F.dropout2d(x, probability, training=True)
    channels = x.shape[1]
    kept = each(draws.next(len(x)), lambda g: g.random(channels)) >= probability
    factor = torch.from_numpy(kept / (1 - probability)).to(x.device, x.dtype)
    return x * factor[:, :, None, None]


class ChannelDropout(nn.Dropout2d):
    """``drop_channels`` as a layer; the identity in evaluation mode."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return drop_channels(x, self.p) if self.training and self.p else x
