"""What a cell of a comparison does: train or resume its run, then score it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from s5mars.comparison.results import STOPPED
from s5mars.evaluation.command import evaluate
from s5mars.files.run_folder import is_trained
from s5mars.predict.inference import AUTO_DEVICE
from s5mars.training import command
from s5mars.training.environment import recorded_as
from s5mars.types import Method


def run_job(job: Mapping[str, Any], *, own: Method | None = None) -> int:
    """Train and score one cell, and return the exit code; an ``own`` method takes one process.

    Raises:
        UserError, OSError: if training or scoring fails.
    """
    run, words = Path(job["run"]), job["train"]
    with recorded_as(words):
        # Also a run that is trained: it may have been stopped before its class biases were fitted.
        if words[1] == "--resume":
            command.resume(run, own=own)
        else:
            command.train(words[1:], own=own, one_process=own is not None)
    if not is_trained(run):
        return STOPPED
    how = dict(job["evaluate"])
    lists = Path(how.pop("splits")) if "splits" in how else None
    inference = replace(AUTO_DEVICE, device=how.pop("device"))
    evaluate(run, splits=lists, inference=inference, **how)
    return 0
