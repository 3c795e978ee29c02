"""Find the evaluation of a run, or make it; and those on data with other classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s5mars.data.trained_on import dataset_of
from s5mars.evaluation.class_map import describe_map
from s5mars.evaluation.command import evaluate
from s5mars.evaluation.found import (
    cross_evaluations,
    find_evaluation,
    is_outdated,
    read_evaluation,
)
from s5mars.files.reading import reading
from s5mars.files.run_folder import TENSORS
from s5mars.report import tables, words
from s5mars.report.folder import Run
from s5mars.text.numbers import score
from s5mars.training.notes import Note


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
    if split is None:
        return {}
    return evaluate(run.folder, data=run.data, splits=run.splits, split=split)


def is_stale(run: Run) -> bool:
    """Return whether the evaluation of the run is of other weights or class biases."""
    found, weights = find_evaluation(run.folder), run.folder / TENSORS
    return found is not None and is_outdated(found, weights)


def cross_rows(folder: Path) -> list[dict[str, Any]]:
    """One entry for each evaluation on other data in a run folder.

    Raises:
        DamagedFileError: if one of the files is damaged.
    """
    rows = []
    for path in cross_evaluations(folder):
        evaluation = read_evaluation(path)
        protocol = words.protocol_of(evaluation)
        with reading(path, kind="evaluation", remedy="remove it and evaluate again"):
            scores = [f"{k} {score(v['iou'], digits=1)}" for k, v in evaluation["classes"].items()]
            note = words.protocol_sentence(evaluation)
            if protocol.get("splits"):
                note = f"{note} The split lists are those in {protocol['splits']}."
            if "map" in protocol:
                note = f"{note} {describe_map(protocol['map'])}"
            data = Path(str(protocol["data"])).name
        row = {"data": data, "classes": ", ".join(scores), "note": note}
        rows.append(row | tables.overall(evaluation))
    return rows


def cross_notices(folder: Path) -> list[Note]:
    """A warning if an evaluation is of other weights or class biases than those of the run."""
    old = [p.name for p in cross_evaluations(folder) if is_outdated(p, folder / TENSORS)]
    text = (
        f"The weights or their class biases are newer than {', '.join(old)}; run `s5mars evaluate "
        "--data` again."
    )
    return [Note("warning", text)] if old else []
