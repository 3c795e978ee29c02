"""Find the evaluation of a run, or make it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s5mars.data.trained_on import dataset_of
from s5mars.evaluation.command import evaluate
from s5mars.evaluation.found import find_evaluation, is_older, read_evaluation
from s5mars.report.folder import Run


def evaluation_of(run: Run) -> Mapping[str, Any]:
    """Read the evaluation of a run, preferring the test split and the protocol ``full``.

    If there is none, evaluate the run on its own data and write the file: on the test split, or on
    the validation split if there is no test split. Without either the result is empty.

    Raises:
        UserError: if an evaluation file is damaged, or there is none and the run does not name its
            data.
        MissingFileError: if there is none and the data or the checkpoint is missing.
    """
    found = find_evaluation(run.folder)
    if found is not None:
        return read_evaluation(found)
    splits = dataset_of(run.folder, run.metrics).splits
    split = next((name for name in ("test", "val") if splits.get(name)), None)
    return {} if split is None else evaluate(run.folder, data=run.data, split=split)


def is_stale(run: Run) -> bool:
    """Return whether the weights of the run are newer than its evaluation."""
    found, weights = find_evaluation(run.folder), run.folder / "best.safetensors"
    return found is not None and is_older(found, weights)
