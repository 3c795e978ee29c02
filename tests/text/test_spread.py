"""Means and spreads, computed by hand."""

from __future__ import annotations

import math

import pytest

from s5mars.text.spread import summary, summary_of_known


def test_mean_and_spread() -> None:
    found = summary([40.0, 42.0, 47.0])
    assert found.mean == pytest.approx(43.0)
    assert found.spread == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert found.n == 3
    assert summary([40.0]).spread is None
    with pytest.raises(ValueError, match="at least one value"):
        summary([])


def test_unknown_values_are_left_out() -> None:
    assert summary_of_known([None, 40.0, 42.0]) == summary([40.0, 42.0])
    assert summary_of_known([None]) is None
    assert str(summary([40.0, 42.0])) == "41.00 ± 1.41" and str(summary([40.0])) == "40.00"
