"""Divide the time of a training step into network passes and everything else."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from s5mars.comparison.step import Step
from s5mars.objective.teacher import update_teacher

NETWORK = ("teacher forward", "student forward", "student backward")
"""Parts that are network passes; these include upsampling to the size of the image."""

PARTS = (
    *NETWORK, "views and losses", "backward of losses", "clipping", "optimiser", "moving average",
)  # fmt: skip


def timed_parts(step: Step, clock: Callable[[], float]) -> dict[str, float]:
    """Take one step of a method whose student is called once, and time its parts.

    Args:
        step: the step; its gradients are clipped, as in training.
        clock: returns the time in seconds; it has to synchronise with an asynchronous device.

    Returns:
        Seconds by name of ``PARTS``.
    """
    module = step.module
    student, teacher = _Watched(module.student, clock), _Watched(module.scored, clock)
    begin = clock()
    loss = step.loss(student, teacher)
    forward = clock()
    step.optimizer.zero_grad()
    cleared = clock()
    loss.backward()  # type: ignore[no-untyped-call]
    at_logits = clock()
    student.backward()
    backward = clock()
    torch.nn.utils.clip_grad_norm_(module.student.parameters(), module.config.clip)
    clipped = clock()
    step.optimizer.step()
    stepped = clock()
    if module.teacher is not None:
        update_teacher(module.teacher, module.student, momentum=0.99)
    end = clock()
    times = (
        student.unlearned + teacher.unlearned,
        student.learned,
        backward - at_logits,
        forward - begin - student.learned - student.unlearned - teacher.unlearned,
        at_logits - cleared,
        clipped - backward,
        stepped - clipped + cleared - forward,
        end - stepped,
    )
    return dict(zip(PARTS, times, strict=True))


class _Watched(nn.Module):
    """A network that measures its forward pass and delays its backward pass."""

    def __init__(self, network: nn.Module, clock: Callable[[], float]) -> None:
        super().__init__()
        self.network = network
        self.clock = clock
        self.learned = self.unlearned = 0.0
        self._passes: list[tuple[Tensor, Tensor]] = []

    def forward(self, image: Tensor) -> Tensor:
        begin = self.clock()
        logits: Tensor = self.network(image)
        seconds = self.clock() - begin
        if not logits.requires_grad:
            self.unlearned += seconds
            return logits
        self.learned += seconds
        leaf = logits.detach().requires_grad_()
        self._passes.append((logits, leaf))
        return leaf

    def backward(self) -> None:
        for logits, leaf in self._passes:
            logits.backward(leaf.grad)  # type: ignore[no-untyped-call]
