"""The teacher: an exponential moving average of the student, eq. 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, *, momentum: float) -> None:
    """θ_t ← m·θ_t + (1 − m)·θ_s over parameters and float buffers; counters are copied.

    Buffers are averaged, too, so that the teacher's batch statistics fit its weights.
    """
    old, new, counters, counted = [], [], [], []
    for target, source in zip(
        (*teacher.parameters(), *teacher.buffers()),
        (*student.parameters(), *student.buffers()),
        strict=True,
    ):
        if target.is_floating_point():
            old.append(target.detach())
            new.append(source.detach())
        else:
            counters.append(target)
            counted.append(source)
    if counters:
        torch._foreach_copy_(counters, counted)
    torch._foreach_lerp_(old, new, 1 - momentum)


@contextmanager
def restoring_modes(network: nn.Module) -> Iterator[None]:
    """Restore the training mode of every submodule at exit."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Set evaluation mode, and restore the mode of every submodule at exit.

    A student that labels for itself then uses its running batch statistics without changing them.
    """
    with restoring_modes(network):
        network.eval()
        try:
            yield
        finally:
            # Older versions of torch would reuse weights cast here, which have no gradient.
            torch.clear_autocast_cache()
