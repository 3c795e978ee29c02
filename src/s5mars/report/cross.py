"""Scores of a run on data with other classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s5mars.evaluation.class_map import describe_map
from s5mars.evaluation.found import cross_evaluations, is_older, read_evaluation
from s5mars.files.reading import reading
from s5mars.report import tables, words
from s5mars.report.numbers import score
from s5mars.report.words import Notice


def cross_rows(folder: Path) -> list[dict[str, Any]]:
    """One entry for each evaluation with a class map in a run folder.

    Raises:
        DamagedFileError: if one of the files is damaged.
    """
    return [_row(path) for path in cross_evaluations(folder)]


def cross_notices(folder: Path) -> list[Notice]:
    """A warning if an evaluation is older than the weights of the run."""
    old = [p.name for p in cross_evaluations(folder) if is_older(p, folder / "best.safetensors")]
    text = f"The weights are newer than {', '.join(old)}; run `s5mars evaluate --map` again."
    return [Notice("warning", text)] if old else []


def _row(path: Path) -> dict[str, Any]:
    evaluation = read_evaluation(path)
    protocol = words.protocol_of(evaluation)
    with reading(path, kind="evaluation", way_out="remove it and evaluate again"):
        return {
            "data": Path(str(protocol["data"])).name,
            "classes": ", ".join(
                f"{name} {score(entry['iou'], digits=1)}"
                for name, entry in evaluation["classes"].items()
            ),
            **tables.overall(evaluation),
            "note": f"{words.protocol_sentence(evaluation)} {describe_map(protocol['map'])}",
        }
