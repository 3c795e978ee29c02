"""Find and read the evaluation in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s5mars.files.reading import object_in, reading

CROSS = "cross"
"""First word of the names of evaluations on data with other classes, which have a class map."""

_MOMENTS = 5.0  # seconds


def find_evaluation(folder: Path) -> Path | None:
    """The preferred evaluation file (test split first, then protocol ``full``), or None."""
    return min(folder.glob("evaluation-*.json"), key=_preference, default=None)


def cross_evaluations(folder: Path) -> list[Path]:
    """The evaluations on data with other classes, sorted by name."""
    return sorted(folder.glob(f"{CROSS}-*.json"))


def is_older(evaluation: Path, weights: Path) -> bool:
    """Whether an evaluation is older than these weights, and thus of other weights."""
    # Copying a folder may write its files in any order, but within a short time.
    return weights.is_file() and weights.stat().st_mtime > evaluation.stat().st_mtime + _MOMENTS


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read a file of ``s5mars evaluate``.

    Raises:
        DamagedFileError: if the file is damaged.
    """
    with reading(path, kind="evaluation", way_out="remove it and evaluate again"):
        value = object_in(path)
        if not isinstance(value["classes"], dict):
            raise TypeError("`classes` is not a table")
        return value


def _preference(path: Path) -> tuple[bool, bool, bool, str]:
    _, split, *protocol = path.stem.split("-", 2)
    return split != "test", not split.startswith("test"), protocol != ["full"], path.name
