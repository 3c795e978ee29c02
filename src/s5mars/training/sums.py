"""Running sums of loss, terms and shares, and their averages over steps and processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from s5mars.parallel import distributed


class RunningSums:
    """Sums of named scalars of this process since the last ``take_averages``."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Add the value of a step; on a CPU, sums have double precision."""
        value = value.detach().double() if value.device.type == "cpu" else value.detach()
        self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._counts[name] = self._counts.get(name, 0) + 1

    def take_averages(self) -> dict[str, float]:
        """Return the averages over steps and processes, and reset the sums."""
        averages = {
            k: float(distributed.total(v)) / distributed.number() / self._counts[k]
            for k, v in self._sums.items()
        }
        self._sums, self._counts = {}, {}
        return averages

    def starting_with(self, *prefixes: str) -> Iterator[tuple[str, Tensor]]:
        """The sums whose names start with a prefix."""
        return ((name, x) for name, x in self._sums.items() if name.startswith(prefixes))

    def state(self) -> dict[str, Any]:
        """State for a checkpoint; all processes call this."""
        return {
            # One per process: each resumes with its own.
            "sums": {k: distributed.joined(v.unsqueeze(0)).cpu() for k, v in self._sums.items()},
            "counts": self._counts,
        }

    def restore(self, state: dict[str, Any], *, device: torch.device) -> None:
        """Restore what ``state`` returned."""
        self._sums = {k: _own(v).to(device) for k, v in state["sums"].items()}
        self._counts = state["counts"]


def _own(sums: Tensor) -> Tensor:
    """This process's sum, or the mean if the number of processes has changed."""
    if sums.ndim and len(sums) == distributed.number():
        return sums[distributed.rank()]
    return sums.mean()
