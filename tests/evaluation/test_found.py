"""Which evaluation in a run folder counts, and when it is of other weights."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from s5mars.evaluation.found import find_evaluation, is_outdated


def test_the_preferred_evaluation_is_of_the_test_split_and_of_whole_images(tmp_path: Path) -> None:
    for name in (
        "evaluation-test-full-student",
        "evaluation-test-full-no-class-biases",
        "evaluation-test-full-sky+ridge",
        "cross-data-same-classes-test-full",
    ):
        (tmp_path / f"{name}.json").touch()
    assert find_evaluation(tmp_path) is None  # none is of the model as it is used
    for name in ("val-paper", "val-full", "test_min1-full", "test-paper", "test-full"):
        path = tmp_path / f"evaluation-{name}.json"
        path.touch()
        assert find_evaluation(tmp_path) == path


@pytest.mark.parametrize(("seconds", "outdated"), [(-60, False), (3, False), (60, True)])
def test_weights_that_were_written_later_are_others(
    tmp_path: Path, seconds: int, outdated: bool
) -> None:
    """A copy of a folder may write its files in any order, within moments."""
    evaluation, weights = tmp_path / "evaluation-test-full.json", tmp_path / "best.safetensors"
    evaluation.write_text(json.dumps({"classes": {}}))
    weights.touch()
    weights.with_suffix(".json").touch()
    os.utime(evaluation, (10_000, 10_000))
    os.utime(weights, (10_000 + seconds, 10_000 + seconds))
    assert is_outdated(evaluation, weights) == outdated
