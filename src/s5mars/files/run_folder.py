"""Names of the files of a run folder, and how far its run has come; nothing here needs torch."""

from __future__ import annotations

from pathlib import Path

from s5mars.errors import UserError
from s5mars.files.reading import read_object

TENSORS, FACTS = "best.safetensors", "best.json"
"""The scored weights and their description, which together are a model."""

METRICS = "metrics.json"
CONFIG = "config.yaml"
VERSIONS = "versions.json"
CHECKPOINT = "last.ckpt"
"""State from which a run is resumed."""

LABELLED = "splits/labelled.txt"
"""Names of the images whose labels were used."""

FOLDS = "folds.json"
"""Summary of a cross-validation, whose runs are in folders below it."""


def run_to_resume(run: Path) -> Path:
    """The run of which a run is a fold or a stage; the run itself if it is neither."""
    if run.parent.name == "stages" and (run.parent.parent / LABELLED).is_file():
        return run_to_resume(run.parent.parent)
    return run.parent if (run.parent / "lists" / f"{run.name}.txt").is_file() else run


def is_finished(run: Path) -> bool:
    """Whether a run has written its final scores, which it writes last."""
    try:
        metrics = read_object(run / METRICS)
        return bool(metrics["steps"] >= metrics["total_steps"])
    except (OSError, UserError, KeyError, TypeError):
        return False


def is_trained(run: Path) -> bool:
    """Whether a run folder contains the scores and weights of a finished run."""
    return is_finished(run) and all((run / name).is_file() for name in (TENSORS, FACTS))


def evaluation_path(run: Path, *, split: str, protocol: str) -> Path:
    """Return the path that ``s5mars evaluate`` writes the scores of a run to."""
    return run / f"evaluation-{split}-{protocol}.json"
