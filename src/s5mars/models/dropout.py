"""Dropout of channels that draws for each image by itself.

torch draws for a batch from one generator, so that what an image loses depends on where in which
process's batch it lies. Within ``drawing`` it depends on (seed, step, image) alone, as all else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5mars.randomness import Generators, each
from s5mars.types import Progress


class _Draws:
    """The generators of one step, for one call after the other."""

    def __init__(self, progress: Progress, size: int) -> None:
        self.progress = progress
        self.size = size
        self.calls = 0

    def next(self, rows: int) -> Generators:
        """For a batch of whole streams, one behind the other."""
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
    """Let dropout draw for the step of ``progress``, whose streams hold ``size`` images here."""
    token = _draws.set(_Draws(progress, size))
    try:
        yield
    finally:
        _draws.reset(token)


def drop_channels(x: Tensor, probability: float) -> Tensor:
    """(B, C, H, W) with channels at zero at a probability in [0, 1), the others enlarged.

    Outside of ``drawing`` it is torch's own ``dropout2d``.
    """
    draws = _draws.get()
    if draws is None:
        return F.dropout2d(x, probability, training=True)
    channels = x.shape[1]
    kept = each(draws.next(len(x)), lambda g: g.random(channels)) >= probability
    factor = torch.from_numpy(kept / (1 - probability)).to(x.device, x.dtype)
    return x * factor[:, :, None, None]


class ChannelDropout(nn.Dropout2d):
    """``drop_channels`` as a layer, at rest in evaluation mode."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return drop_channels(x, self.p) if self.training and self.p else x
