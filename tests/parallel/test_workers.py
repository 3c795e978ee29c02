"""Processes of their own: a crash costs one item, and none is left behind."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from crashing import start_work
from s5mars.parallel.ahead import ahead
from s5mars.parallel.workers import CrashError, Processes, ended


def test_results_errors_and_crashes() -> None:
    with closing(Processes(start_work, most=1)) as work:
        filled, empty, text = work(7)
        assert np.array_equal(filled, np.full((50, 70, 3), 7, np.uint8))
        assert filled.flags.writeable and empty.shape == (0, 3) and text == "text"
        number, first, threads = work("who")
        assert (number, threads) == (0, "1") and first != os.getpid()
        with pytest.raises(FileNotFoundError, match="no such thing"):
            work("raise")
        assert work("who")[1] == first
        with pytest.raises(CrashError, match="was ended by SIGABRT"):
            work("abort")
        with pytest.raises(CrashError, match="ended with code 3"):
            work("leave")
        assert work("who")[0] == 0 and work("who")[1] != first


def test_threads_share_a_few_of_them() -> None:
    with closing(Processes(start_work, most=2)) as work:
        answers = list(ahead(work, ["who"] * 12, workers=4))
    assert {number for number, _, _ in answers} <= {0, 1}
    assert len({process for _, process, _ in answers}) <= 2


def test_close_ends_all_of_them() -> None:
    # Only the one that was used last was ended, so a notebook gathered the others.
    with closing(Processes(start_work, most=3)) as work:
        answers = list(ahead(work, ["who"] * 12, workers=3))
    for process in {process for _, process, _ in answers}:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_user_whose_pipes_may_not_grow_has_slower_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*arguments: object) -> None:
        asked.append(arguments)
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with closing(Processes(start_work, most=1)) as work:
        assert work(7)[2] == "text"
    assert asked


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals")
def test_they_end_with_a_killed_caller() -> None:
    program = (
        "import time; from crashing import start_work\n"
        "from s5mars.parallel.workers import Processes\n"
        "work = Processes(start_work, most=1); print(work('who')[1], flush=True); time.sleep(60)"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    caller = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert caller.stdout is not None
    process = int(caller.stdout.readline())
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    caller.stdout.close()
    for _ in range(600):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("its process is still there")


def test_how_a_process_ended_is_said_in_words() -> None:
    assert ended(3) == "ended with code 3"
    assert ended(-signal.SIGABRT) == "ended by SIGABRT"
    assert ended(-signal.SIGKILL) == "ended by SIGKILL, perhaps out of memory"
    assert ended(-60) == "ended by signal 60"  # one that has no name
