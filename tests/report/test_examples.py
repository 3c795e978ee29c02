"""Which images are shown."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from s5mars.predict.spacing import evenly_spaced
from s5mars.report.examples import best_worst_typical, scored, without_scores
from s5mars.report.pictures import Panel, Shown


def test_images_without_a_score_are_left_out_and_the_worst_come_first() -> None:
    entries = [
        {"name": "b", "mIoU": 50.0},
        {"name": "c", "mIoU": None},
        {"name": "d", "mIoU": math.nan},
        {"mIoU": 1.0},
        {"name": "a", "mIoU": 50.0},
        {"name": "e", "mIoU": 10},
    ]
    assert scored({"per_image": entries}) == [("e", 10.0), ("a", 50.0), ("b", 50.0)]
    assert scored({}) == []


def test_best_worst_and_typical_of_nine() -> None:
    ranking = [(str(place), float(place)) for place in range(9)]
    chosen = best_worst_typical(ranking, 2)
    assert {kind: [name for name, _ in pairs] for kind, pairs in chosen.items()} == {
        "typical": ["3", "4"],
        "best": ["8", "7"],
        "worst": ["0", "1"],
    }


@given(st.integers(0, 40), st.integers(0, 12))
def test_no_image_is_shown_twice(images: int, each: int) -> None:
    ranking = [(str(place), float(place)) for place in range(images)]
    chosen = best_worst_typical(ranking, each)
    names = [name for pairs in chosen.values() for name, _ in pairs]
    assert len(names) == len(set(names))
    if images >= 3 * each > 0:
        assert [len(pairs) for pairs in chosen.values()] == [each] * 3
    if chosen.get("best"):
        assert min(value for _, value in chosen["best"]) > max(v for _, v in chosen["worst"])


@given(st.integers(1, 50), st.integers(2, 12))
def test_a_spread_has_both_ends_and_no_image_twice(images: int, amount: int) -> None:
    names = [str(place) for place in range(images)]
    chosen = evenly_spaced(names, amount)
    assert len(chosen) == len(set(chosen)) == min(images, amount)
    assert chosen[0] == names[0]
    assert chosen[-1] == names[-1]
    assert chosen == sorted(chosen, key=int)


def test_a_run_without_a_score_shows_as_many_images_as_asked_for(tmp_path: Path) -> None:
    run: Any = SimpleNamespace(folder=tmp_path)
    samples = tuple(SimpleNamespace(name=name) for name in "abcde")
    dataset: Any = SimpleNamespace(unlabelled=samples)
    assert [name for name, _ in without_scores(run, dataset, 4)["unlabelled"]] == list("abde")


def test_rows_of_panels_are_equally_long() -> None:
    panel = Panel("", "")
    columns = {n: Shown("", "", (panel,) * n).columns for n in range(1, 12)}
    assert [columns[n] for n in (1, 3, 4, 5, 6, 8, 11)] == [1, 3, 4, 5, 3, 4, 4]
