"""One cell of a comparison in its own process, see ``comparison.job``.

A crash or a lack of memory ends only this cell. The process ends with its parent, so that a restart
never finds two trainers in one folder. ``runner.py`` starts it as ``python -m s5mars.cli.child``;
the job arrives as one line of JSON on standard input, which is closed when the parent ends.
"""

from __future__ import annotations

import os
import sys
import threading

from s5mars.cli import exit_code, main

_ORPHANED = 76


def work() -> int:
    """Run the job that standard input describes; return the exit code."""
    if len(sys.argv) > 1:  # a further process of a distributed run, started by Lightning
        return main(sys.argv[1:])
    job = sys.stdin.readline()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return do(job)


def do(job: str) -> int:
    """Train and score the cell of a ``Job`` as JSON; return the exit code."""
    from s5mars.comparison.job import Job, run_job  # imports torch, while the parent is watched

    return exit_code(lambda: run_job(Job.from_json(job)))


def _end_with_parent() -> None:
    # Not sys.stdin: a loader process closes its copy, and would wait for this thread's lock.
    while os.read(0, 1):
        pass
    os._exit(_ORPHANED)  # as a kill would: files are whole or absent


if __name__ == "__main__":
    raise SystemExit(work())
