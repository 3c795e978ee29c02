"""One cell in a process of its own: ``s5mars train``, then ``s5mars evaluate``.

A crash, or the system's want of memory, ends this cell and no other. The process lives no longer
than the one that started it, whatever ends that: else the next start would find two trainers in one
folder. Started by ``runner.py`` as ``python -m s5mars.cli.child``; its work arrives as one line
of JSON on standard input, whose end is the end of the parent.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from s5mars.cli import main
from s5mars.compare.results import STOPPED, is_trained

_ORPHANED = 76


def work() -> int:
    """Do what standard input says."""
    if len(sys.argv) > 1:  # a further process of a distributed run, started by Lightning
        return main(sys.argv[1:])
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return do(job)


def do(job: dict[str, Any]) -> int:
    """Train and evaluate one cell; the exit code."""
    run = Path(job["run"])
    if not is_trained(run):
        if failed := _command(job["train"]):
            return failed
        if not is_trained(run):
            return STOPPED
    return _command(job["evaluate"])


def _command(arguments: list[str]) -> int:
    sys.argv = ["s5mars", *arguments]  # the run writes down the command that made it
    return main(arguments)


def _end_with_parent() -> None:
    # Not sys.stdin: a loader process closes its copy, and would wait for this thread's lock.
    while os.read(0, 1):
        pass
    os._exit(_ORPHANED)  # as a kill would: files are whole or absent


if __name__ == "__main__":
    raise SystemExit(work())
