"""The wording that all messages share."""

from __future__ import annotations

import pytest

from s5mars.errors import (
    UserError,
    did_you_mean,
    listed,
    nearest_first,
    require_choice,
    require_limit,
)


def test_long_lists_are_cut_and_counted() -> None:
    assert listed([]) == ""
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b", "c", "d"], 2) == "a, b and 2 more"


def test_the_nearest_name_comes_first_whatever_its_case() -> None:
    assert nearest_first("ROK", ["sky", "soil", "rock"]) == ["rock", "sky", "soil"]
    assert did_you_mean("rok", ["sky", "rock"]) == "; did you mean 'rock'?"
    assert did_you_mean("xxxx", ["sky", "rock"]) == ""


def test_a_wrong_choice_lists_all() -> None:
    require_choice("a", ["a", "b"], name="--x")
    with pytest.raises(UserError, match=r"^--x must be one of a, b \(got 'c'\)$"):
        require_choice("c", ["a", "b"], name="--x")


@pytest.mark.parametrize("value", [10**400, float("inf"), float("nan")])
def test_numbers_without_end_are_refused(value: float) -> None:
    require_limit("at least 1", **{"--x": 1})
    with pytest.raises(UserError, match=r"^--x must be finite \(got "):
        require_limit("at least 1", **{"--x": value})
