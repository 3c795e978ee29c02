"""Cells whose method is an object: only this process knows its class, so they are trained in it."""

from __future__ import annotations

import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from s5mars.comparison.job import Job, run_job
from s5mars.errors import UserError
from s5mars.types import Method

_USER_ERROR = 2


class InProcess:
    """In the place of a child process: the cell is trained and scored when this is made."""

    stdin = None

    def __init__(self, job: Job, own: Method, *, log: Path) -> None:
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


def _do(job: Job, own: Method) -> int:
    try:
        return run_job(job, own=own)
    except (UserError, OSError) as error:
        print(f"s5mars: {error}", file=sys.stderr)
        return _USER_ERROR
    except Exception:  # a fault of the method fails its cell alone, as in a child process
        traceback.print_exc()
        return 1
