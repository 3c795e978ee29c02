"""Find and read the evaluation in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s5mars.files.reading import object_in, reading
from s5mars.models.facts import class_biases_of, read_facts

CROSS = "cross"
"""First word of the names of evaluations on other data or split lists than those of training."""

SAME_CLASSES = "same-classes"
"""In the place of the class map in their names, if they need none."""

NO_CLASS_BIASES = "no-class-biases"
"""Part of the names of evaluations without the class biases of the model."""

_MOMENTS = 5.0  # seconds


def find_evaluation(folder: Path) -> Path | None:
    """The preferred evaluation file (test split first, then protocol ``full``), or None.

    Evaluations of the student, of merged classes or without the class biases of the model are not
    of the model as it is used.
    """
    found = (path for path in folder.glob("evaluation-*.json") if _is_as_used(path))
    return min(found, key=_preference, default=None)


def cross_evaluations(folder: Path) -> list[Path]:
    """The evaluations on other data, sorted by name."""
    return sorted(folder.glob(f"{CROSS}-*.json"))


def is_outdated(evaluation: Path, weights: Path) -> bool:
    """Whether an evaluation is of other weights or other class biases than these."""
    if not (weights.is_file() and weights.with_suffix(".json").is_file()):
        return False
    # Copying a folder may write its files in any order, but within a short time.
    if weights.stat().st_mtime > evaluation.stat().st_mtime + _MOMENTS:
        return True
    if NO_CLASS_BIASES in evaluation.stem:
        return False
    protocol = read_evaluation(evaluation).get("protocol")
    if not isinstance(protocol, dict):
        return False
    biases = class_biases_of(read_facts(weights), str(protocol.get("network")))
    return list(biases or []) != (protocol.get("class_biases") or [])


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read a file of ``s5mars evaluate``.

    Raises:
        DamagedFileError: if the file is damaged.
    """
    with reading(path, kind="evaluation", remedy="remove it and evaluate again"):
        value = object_in(path)
        if not isinstance(value["classes"], dict):
            raise TypeError("`classes` is not a table")
        return value


def _is_as_used(path: Path) -> bool:
    # Only the names of merged classes contain a +.
    other = path.stem.endswith("-student") or "+" in path.stem or NO_CLASS_BIASES in path.stem
    return not other


def _preference(path: Path) -> tuple[bool, bool, bool, str]:
    _, split, *protocol = path.stem.split("-", 2)
    return split != "test", not split.startswith("test"), protocol != ["full"], path.name
