"""Which run to resume."""

from __future__ import annotations

from pathlib import Path

import pytest

from s5mars.files.run_folder import LABELLED, run_to_resume


@pytest.mark.parametrize(
    ("runs", "asked", "resumed"),
    [
        (["a"], "a", "a"),
        (["a", "a/fold-2"], "a/fold-2", "a"),
        (["a", "a/stages/labels"], "a/stages/labels", "a"),
        (["a", "a/fold-2", "a/fold-2/stages/reliable"], "a/fold-2/stages/reliable", "a"),
        (["b", "b/fold-2"], "b/fold-2", "b/fold-2"),  # the user chose this name
        (["stages/mine"], "stages/mine", "stages/mine"),  # and this one
        (["a", "a/other"], "a/other", "a/other"),
    ],
)
def test_a_fold_or_stage_is_resumed_with_its_run(
    tmp_path: Path, runs: list[str], asked: str, resumed: str
) -> None:
    for run in runs:
        (tmp_path / run / LABELLED).parent.mkdir(parents=True)
        (tmp_path / run / LABELLED).touch()
    (tmp_path / "a" / "lists").mkdir(parents=True, exist_ok=True)
    (tmp_path / "a" / "lists" / "fold-2.txt").touch()
    assert run_to_resume(tmp_path / asked) == tmp_path / resumed
