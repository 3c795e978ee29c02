"""Numbers in words."""

from __future__ import annotations

import math

import pytest

from s5mars.text.numbers import UNKNOWN, count, duration, interval, number, plural, score, share


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "3", True, [1]])
def test_what_is_no_number_is_unknown(value: object) -> None:
    assert number(value) is None
    assert score(value) == count(value) == duration(value) == share(value, 1) == UNKNOWN


def test_numbers() -> None:
    assert score(51.256) == "51.26"
    assert score(51, digits=0) == "51"
    assert count(1234567) == "1,234,567"
    assert share(20, 160) == "12.5\u202f%"
    assert share(1, 1) == "100\u202f%"
    assert share(3, 10_000) == "0.03\u202f%"
    assert share(1, 0) == UNKNOWN
    assert plural(1, "image") == "1 image"
    assert plural(2, "image is", "images are") == "2 images are"
    assert plural(1, "image is", "images are") == "1 image is"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (61, "1 min"),
        (3725, "1 h 2 min"),
        (3599, "1 h 0 min"),
        (86_400, "24 h 0 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_intervals() -> None:
    assert interval([1, 2.5]) == (1.0, 2.5)
    for value in (None, [], [1], [1, None], [1, math.nan], "12", {"low": 1, "high": 2}):
        assert interval(value) is None
