"""Cells of a comparison in the process of the tests, where a process of their own is not the point.

A fresh process imports for six seconds before it trains a tiny cell for one. Real ones are killed
in ``comparison/test_compare.py``.
"""

from __future__ import annotations

import io
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from s5mars.cli import child
from s5mars.comparison import runner


class Cell:
    """In the place of ``subprocess.Popen``: the cell is worked off when it is first asked for."""

    def __init__(self, command: list[str], *, stdout: IO[str], **_: Any) -> None:
        assert command[1:] == ["-m", child.__name__]
        self.stdin, self.log = io.StringIO(), Path(stdout.name)
        self.returncode: int | None = None

    def poll(self) -> int:
        if self.returncode is None:
            with self.log.open("w") as log, redirect_stdout(log), redirect_stderr(log):
                self.returncode = child.do(self.stdin.getvalue())
        return self.returncode


def train_cells_here(patch: pytest.MonkeyPatch) -> None:
    """Let ``s5mars compare`` train in this process."""
    here = SimpleNamespace(Popen=Cell, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)
    patch.setattr(runner, "subprocess", here)
    patch.setattr(runner, "_LOOK_SECONDS", 0)
