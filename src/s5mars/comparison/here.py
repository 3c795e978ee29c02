"""Cells whose method is an object: only this process knows its class, so they are trained in it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from s5mars.comparison.results import STOPPED, is_trained
from s5mars.errors import UserError
from s5mars.evaluation.command import evaluate
from s5mars.predict.inference import AUTO_DEVICE
from s5mars.training import command
from s5mars.training.environment import recorded_as
from s5mars.types import Method

_USER_ERROR = 2


class Here:
    """In the place of a child process: the cell is trained and scored when this is made."""

    stdin = None

    def __init__(self, job: Mapping[str, Any], own: Method, *, log: Path) -> None:
        with log.open("w", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
            self.returncode = _do(job, own)

    def poll(self) -> int:
        """The return code, as that of the child process."""
        return self.returncode

    def wait(self) -> int:
        """The return code, as that of the child process."""
        return self.returncode

    def send_signal(self, _: int) -> None:
        """Do nothing: the work has ended."""


def _do(job: Mapping[str, Any], own: Method) -> int:
    run = Path(job["run"])
    try:
        with recorded_as(job["train"]):
            if job["train"][1] == "--resume":  # also a trained run, as in ``cli.child``
                command.resume(run, own=own)
            else:
                command.train(job["train"][1:], own=own, one_process=True)
        if not is_trained(run):
            return STOPPED
        how = dict(job["evaluate"])
        lists = Path(how.pop("splits")) if "splits" in how else None
        inference = replace(AUTO_DEVICE, device=how.pop("device"))
        evaluate(run, splits=lists, inference=inference, **how)
    except (UserError, OSError) as error:
        print(f"s5mars: {error}", file=sys.stderr)
        return _USER_ERROR
    except Exception:  # a fault of the method fails its cell alone, as in a child process
        traceback.print_exc()
        return 1
    return 0
