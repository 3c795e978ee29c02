"""Divide the time of a training step into network passes and everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from s5mars.comparison.step import Step

NETWORK = ("teacher forward", "student forward", "student backward")
"""Parts that are network passes; these include upsampling to the size of the image."""

PARTS = (
    *NETWORK, "views and losses", "backward of losses", "clipping", "optimiser", "moving average",
)  # fmt: skip


def timed_parts(step: Step, clock: Callable[[], float]) -> dict[str, float]:
    """Take one step of a method whose student is called once, and time its parts.

    Args:
        step: the step.
        clock: returns the time in seconds; it has to synchronise with an asynchronous device.

    Returns:
        Seconds by name of ``PARTS``.
    """
    module = step.module
    student, teacher = _Watched(module.student, clock), _Watched(module.scored, clock)
    begin = clock()
    loss = step.loss()
    forward = clock()
    student.unwatch()
    teacher.unwatch()
    loss.backward()  # type: ignore[no-untyped-call]
    at_logits = clock()
    student.backward()
    backward = clock()
    module.leave_out_unused()
    step.clip()
    clipped = clock()
    step.optimizer.step()
    step.optimizer.zero_grad()
    stepped = clock()
    module.finish_step()
    end = clock()
    times = (
        student.unlearned + teacher.unlearned,
        student.learned,
        backward - at_logits,
        forward - begin - student.learned - student.unlearned - teacher.unlearned,
        at_logits - forward,
        clipped - backward,
        stepped - clipped,
        end - stepped,
    )
    return dict(zip(PARTS, times, strict=True))


class _Watched:
    """Measures the forward passes of a network, and delays its backward passes."""

    def __init__(self, network: nn.Module, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.learned = self.unlearned = 0.0
        self._begun = 0.0
        self._passes: list[tuple[Tensor, Tensor]] = []
        self._hooks = (
            network.register_forward_pre_hook(self._begin),
            network.register_forward_hook(self._end),
        )

    def unwatch(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self, *_: Any) -> None:
        self._begun = self.clock()

    def _end(self, _network: nn.Module, _image: Any, logits: Tensor) -> Tensor:
        seconds = self.clock() - self._begun
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
