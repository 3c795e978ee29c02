"""Means over seeds, and paired differences between two rows with Student's t interval."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from s5mars.errors import UserError

LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean and spread of one row over its seeds."""

    mean: float
    spread: float | None  # standard deviation, divisor n − 1; None for one seed
    n: int


@dataclass(frozen=True)
class Difference:
    """Difference between two rows over their common seeds."""

    mean: float
    low: float | None  # None for one pair
    high: float | None
    n: int

    @property
    def shown(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def summary(values: Sequence[float]) -> Summary:
    """Return the mean and standard deviation.

    Raises:
        UserError: if ``values`` is empty.
    """
    if not values:
        raise UserError("the mean needs at least one value")
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Summary(statistics.fmean(values), spread, len(values))


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    """Mean of first minus second ± t · s / √n over the common seeds; None if there are none.

    Both map seeds to scores. The interval is Student's t at the confidence level ``LEVEL``.
    """
    pairs = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
    if not pairs:
        return None
    mean = statistics.fmean(pairs)
    if len(pairs) == 1:
        return Difference(mean, None, None, 1)
    quantile = float(stats.t.ppf((1 + LEVEL) / 2, len(pairs) - 1))
    half = quantile * statistics.stdev(pairs) / len(pairs) ** 0.5
    return Difference(mean, mean - half, mean + half, len(pairs))
