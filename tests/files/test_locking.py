"""A folder belongs to one process, which its end, however it comes, takes out of it."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from s5mars.cli import main
from s5mars.errors import UserError
from s5mars.files.locking import LOCK, is_empty, is_locked, locked

HOLD = (
    "import sys, time; from pathlib import Path; from s5mars.files.locking import locked\n"
    "with locked(Path(sys.argv[1])):\n"
    "    print('held', flush=True); time.sleep(600)"
)


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds ``tmp_path / 'out'``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_nothing_is_left_and_what_was_written_stays(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b"):
        assert is_empty(tmp_path / "a" / "b")
    assert not (tmp_path / "a" / "b").exists()
    with locked(tmp_path / "a"):
        (tmp_path / "a" / "file").touch()
        assert not is_empty(tmp_path / "a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_the_second_is_told_who_holds_it(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with (
        pytest.raises(UserError, match=rf"out is in use by process {holder.pid} on .+ \(s5mars "),
        locked(tmp_path / "out"),
    ):
        pass
    with locked(tmp_path / "mine"), pytest.raises(UserError), locked(tmp_path / "mine"):
        pass


def test_a_process_that_waits_gets_it_and_says_whom_it_waits_for(
    tmp_path: Path, holder: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    threading.Timer(0.7, holder.kill).start()
    with locked(tmp_path / "out", wait=True):
        holder.wait(1)
        assert (tmp_path / "out" / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert len(caplog.messages) == 1
    assert f"is in use by process {holder.pid} on " in caplog.text


def test_a_killed_process_holds_nothing(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert (tmp_path / "out" / LOCK).exists()
    assert is_empty(tmp_path / "out")
    with locked(tmp_path / "out"):
        text = (tmp_path / "out" / LOCK).read_text()
        assert text.startswith(f"process {os.getpid()} on ")


def test_whether_a_folder_is_locked_is_asked_without_a_trace(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    assert not is_locked(tmp_path / "absent")
    (tmp_path / "free").mkdir()
    assert not is_locked(tmp_path / "free") and not any((tmp_path / "free").iterdir())
    assert is_locked(tmp_path / "out") and is_locked(tmp_path / "out")
    holder.kill()
    holder.wait()
    # A second one that asks at the same moment is not taken for a holder.
    with (tmp_path / "out" / LOCK).open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert not is_locked(tmp_path / "out")


def test_who_asks_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LOCK).write_text("process 1, which was killed")
    asking = os.open(tmp_path / LOCK, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as ``is_locked`` does for a moment
    monkeypatch.setattr("s5mars.files.locking.time.sleep", lambda _seconds: os.close(asking))
    with locked(tmp_path):
        assert is_locked(tmp_path)


def test_a_forked_child_does_not_keep_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with locked(tmp_path):
        child = context.Process(target=time.sleep, args=(600,))
        child.start()
    try:
        with locked(tmp_path):
            assert child.is_alive()
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize(
    "command",
    [
        "train --data DATA --out OUT --steps 1 --batch 2 --crop 32 --model test_resnet "
        "--weights none --workers 0 --method supervised",
        "masks DATA --out OUT",
        "compare --data DATA --methods supervised --steps 1 --out OUT",
    ],
    ids=lambda command: command.split()[0],
)
def test_commands_leave_a_folder_in_use_alone(
    command: str,
    tmp_path: Path,
    holder: subprocess.Popen[str],
    fake_data: object,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = fake_data.plain(tmp_path / "scenes", size=(64, 64))  # type: ignore[attr-defined]
    names = {"DATA": str(data), "OUT": str(tmp_path / "out")}
    assert main([names.get(word, word) for word in command.split()]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "s5mars: " in line]
    assert len(said) == 1
    assert re.search(rf"out is in use by process {holder.pid} on ", said[0])
    assert is_empty(tmp_path / "out")
    holder.send_signal(signal.SIGTERM)
