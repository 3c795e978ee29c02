"""Mean and standard deviation of repeated runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from s5mars.errors import UserError
from s5mars.text.numbers import score


@dataclass(frozen=True)
class Summary:
    """Mean and spread of a score over runs, such as seeds or folds."""

    mean: float
    spread: float | None  # standard deviation, divisor n − 1; None for one run
    n: int

    def __str__(self) -> str:
        """``"51.20 ± 1.30"``; ``"51.20"`` for one run."""
        return score(self.mean) + ("" if self.spread is None else f" ± {score(self.spread)}")


def summary(values: Sequence[float]) -> Summary:
    """Return the mean and standard deviation.

    Raises:
        UserError: if ``values`` is empty.
    """
    if not values:
        raise UserError("the mean needs at least one value")
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Summary(statistics.fmean(values), spread, len(values))


def summary_of_known(values: Iterable[float | None]) -> Summary | None:
    """Return ``summary`` of the values that are not None; None if there is none."""
    known = [value for value in values if value is not None]
    return summary(known) if known else None
