"""Student's t interval of paired differences, computed by hand."""

from __future__ import annotations

import math

import pytest

from s5mars.comparison.intervals import Difference, paired_difference


def test_paired_interval_by_hand() -> None:
    # Differences 1, 2, 3 of the common seeds: mean 2, s = 1, t(0.975; 2) = 4.302653.
    found = paired_difference({0: 11.0, 1: 22.0, 2: 33.0, 7: 99.0}, {2: 30.0, 1: 20.0, 0: 10.0})
    assert found is not None
    assert (found.mean, found.n) == (pytest.approx(2.0), 3)
    half = 4.302653 / math.sqrt(3)
    assert found.low == pytest.approx(2 - half, abs=1e-5)
    assert found.high == pytest.approx(2 + half, abs=1e-5)
    assert not found.shown  # −0.48 to 4.48


def test_pairing_removes_what_seeds_share() -> None:
    # Seeds differ by tens, the rows by 1 and 1.2: t(0.975; 1) = 12.7062, s/√2 = 0.1.
    found = paired_difference({0: 11.0, 1: 51.2}, {0: 10.0, 1: 50.0})
    assert found is not None
    assert found.low == pytest.approx(1.1 - 12.7062 * 0.1, abs=1e-4)
    tight = paired_difference({0: 11.0, 1: 51.02}, {0: 10.0, 1: 50.0})
    assert tight is not None and tight.shown


def test_one_pair_and_none() -> None:
    assert paired_difference({0: 3.0, 1: 9.0}, {0: 1.0}) == Difference(2.0, None, None, 1)
    assert not Difference(2.0, None, None, 1).shown
    assert paired_difference({0: 3.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("low", "high", "shown"), [(0.1, 2, True), (-2, -0.1, True), (0, 1, False)]
)
def test_zero_at_the_end_is_not_shown(low: float, high: float, shown: bool) -> None:
    assert Difference(1.0, low, high, 3).shown is shown
