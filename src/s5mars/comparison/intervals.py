"""Paired differences between two rows over seeds, with Student's t interval."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from scipy import stats

LEVEL = 0.95


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
