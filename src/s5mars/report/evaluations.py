"""The evaluation that a report is about: found in the run folder, or made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s5mars.data.layouts import open_dataset
from s5mars.errors import UserError
from s5mars.evaluation.command import evaluate
from s5mars.evaluation.found import find_evaluation, is_older, read_evaluation
from s5mars.report.folder import Run

_SPLITS = ("test", "val")


def evaluation_of(run: Run) -> Mapping[str, Any]:
    """The evaluation in the run folder: of the test split before others, ``full`` before others.

    If there is none, the run is evaluated on its own data, on the test split, or on the validation
    split where no test split exists; that writes the file that the next report finds.

    Raises:
        UserError: if an evaluation file is damaged, or there is none and the data is not known.
        MissingFileError: if there is none and the data or the checkpoint is not there.
    """
    found = find_evaluation(run.folder)
    return _made(run) if found is None else read_evaluation(found)


def is_stale(run: Run) -> bool:
    """Whether the weights of the run were written after its evaluation."""
    found, weights = find_evaluation(run.folder), run.folder / "best.safetensors"
    return found is not None and is_older(found, weights)


def _made(run: Run) -> Mapping[str, Any]:
    if run.data is None:
        raise UserError(
            f"{run.folder} holds no evaluation and does not name its data; "
            f"`s5mars evaluate {run.folder} --data FOLDER` makes one"
        )
    splits = open_dataset(run.data).splits
    split = next((name for name in _SPLITS if splits.get(name)), None)
    if split is None:
        raise UserError(f"{run.data} has neither a test nor a val split to evaluate {run.folder}")
    return evaluate(run.folder, data=run.data, split=split)
