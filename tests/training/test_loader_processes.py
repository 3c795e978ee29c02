"""A loader process that dies, or stops, ends the run in seconds, with one line."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from apart import run_command
from s5mars.cli import main
from s5mars.training import loader, loader_processes, signals
from s5mars.training.shared_memory import NO_ROOM

NO_RIGHT = 77


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory, fake_data: ModuleType) -> Path:
    root: Path = fake_data.plain(tmp_path_factory.mktemp("data") / "scenes", size=(64, 64))
    return root


def arguments(data: Path, out: Path, **changes: object) -> list[str]:
    settings: dict[str, object] = {
        "data": data, "out": out, "method": "supervised", "steps": 20, "batch": 2, "crop": 32,
        "model": "test_resnet", "weights": "none", "workers": 1, "validate_every": 20,
        "save_every": 1, "accelerator": "cpu", "devices": 1, "resolution": "full",
    } | changes  # fmt: skip
    return ["train", *(f"--{key.replace('_', '-')}={value}" for key, value in settings.items())]


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, work: Callable[[], object]) -> None:
    """Loader processes, which are forked, do some work before they draw that step."""
    draw = loader.TrainingBatches._draw

    def drawn(self: Any, stream: str, samples: Any, at: int, k: int) -> Any:
        if at == step:
            work()
        return draw(self, stream, samples, at, k)

    monkeypatch.setattr(loader.TrainingBatches, "_draw", drawn)


def said(text: str) -> str:
    return re.split(r"[\r\n]", text.strip())[-1]


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (
            lambda: os.kill(os.getpid(), signal.SIGKILL),
            "a loader process was ended by SIGKILL, perhaps out of memory: ",
        ),
        (lambda: os._exit(3), "a loader process ended with code 3: "),
        (lambda: os._exit(28), "a loader process found no space in /dev/shm: "),
    ],
)
def test_a_loader_process_that_dies(
    end: Callable[[], object],
    reason: str,
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    at_step(monkeypatch, 12, end)
    out = tmp_path / "out"
    assert main(arguments(scenes, out)) == 2
    line = said(capsys.readouterr().err)
    assert line.startswith(f"s5mars: {reason}")
    assert "--workers" in line
    assert line.endswith(f" is saved; resume with: s5mars train --resume {out}") or (
        "nothing was saved yet" in line
    )


def test_a_loader_process_that_dies_while_the_run_saves(
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another error may follow that of torch's signal handler, which is then its context."""
    save = torch.save

    def interrupted(state: dict[str, object], file: object) -> None:
        save(state, file)
        if state["global_step"] != 3:
            return
        try:
            raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly with exit code 3. ")
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos")

    monkeypatch.setattr(torch, "save", interrupted)
    out = tmp_path / "out"
    assert main(arguments(scenes, out, workers=0)) == 2
    line = said(capsys.readouterr().err)
    assert line.startswith(
        "s5mars: a loader process ended with code 3: use fewer --workers; step 2"
    )


def test_a_batch_that_never_comes(
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    at_step(monkeypatch, 3, lambda: time.sleep(600))
    monkeypatch.setattr(loader_processes, "PATIENCE_SECONDS", 2)
    assert main(arguments(scenes, tmp_path / "out")) == 2
    line = said(capsys.readouterr().err)
    assert line.startswith("s5mars: no batch came for ") and "step 3 is saved" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_that_waits_for_a_batch(
    number: signal.Signals,
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    at_step(monkeypatch, 3, lambda: time.sleep(600))
    monkeypatch.setattr(signals, "GRACE_SECONDS", 0.5)
    out = tmp_path / "out"

    def stop() -> None:
        while not (out / "last.ckpt").is_file():
            time.sleep(0.05)
        time.sleep(2)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop, daemon=True).start()
    assert main(arguments(scenes, out)) == 2
    assert said(capsys.readouterr().err) == (
        f"s5mars: stopped by {number.name} while waiting for a batch; step 3 is saved; "
        f"resume with: s5mars train --resume {out}"
    )
    now = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    assert now == handlers


def test_a_sigterm_to_all_processes_saves_the_run(
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As timeout and SLURM send it."""

    def stop_all() -> None:
        for process in (os.getpid(), os.getppid()):
            os.kill(process, signal.SIGTERM)

    at_step(monkeypatch, 12, stop_all)
    out = tmp_path / "out"
    assert main(arguments(scenes, out, save_every=100)) == 143
    line = said(capsys.readouterr().err)
    assert re.match(r"stopped by SIGTERM after step \d+ of 20, saved; resume with", line)
    assert (out / "last.ckpt").is_file()


def takes_sigterm(thread: Path) -> bool:
    blocked = re.search(r"SigBlk:\s*(\w+)", (thread / "status").read_text())
    return blocked is not None and not int(blocked[1], 16) >> (signal.SIGTERM - 1) & 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_threads_that_a_fork_starts_do_not_take_a_sigterm(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forking = True

    def start_thread() -> None:
        if forking:
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()

    def check() -> None:
        taking = [t for t in Path("/proc/self/task").iterdir() if takes_sigterm(t)]
        if len(taking) > 1:  # the thread that waits for the signal
            os._exit(3)

    os.register_at_fork(after_in_child=start_thread)
    at_step(monkeypatch, 0, check)
    assert main(arguments(scenes, tmp_path / "out", steps=1, validate_every=1)) == 0
    assert takes_sigterm(Path(f"/proc/self/task/{threading.get_native_id()}"))
    forking = False


def with_little_room(*, seen: bool) -> None:
    """Mount a small /dev/shm that this process and its children alone see."""
    libc = ctypes.CDLL(None)
    new_namespace, private = 0x20000, 0x44000  # CLONE_NEWNS; MS_REC | MS_PRIVATE
    if (
        libc.unshare(new_namespace)
        or libc.mount(None, b"/", None, private, None)
        or libc.mount(b"none", b"/dev/shm", b"tmpfs", 0, b"size=1m")
    ):
        raise SystemExit(NO_RIGHT)
    if not seen:
        loader_processes.fitting_workers = lambda *_, **__: (2, 4)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
@pytest.mark.parametrize("seen", [True, False])
def test_little_shared_memory(seen: bool, scenes: Path, tmp_path: Path) -> None:
    """Where it is seen before, it is trained without processes; where it fills later, it ends."""
    command = arguments(
        scenes, tmp_path / "out", steps=2, workers=2, crop=160, batch=4, scale="[3,3]"
    )
    done = run_command(command, tmp_path, before=partial(with_little_room, seen=seen))
    if done.code == NO_RIGHT:
        pytest.skip("nothing may be mounted here")
    if seen:
        assert done.code == 0, done.err
        assert "the training process reads the data itself" in done.err
    else:
        assert done.code == 2, done.err
        assert said(done.err).startswith("s5mars: a loader process found no space in /dev/shm: ")


def test_the_exit_code_of_a_dead_process_is_waited_for() -> None:
    """Its sentinel may be ready a moment before its exit code."""

    class Dying:
        exitcode: int | None = None

        def __init__(self) -> None:
            reader, writer = os.pipe()
            os.close(writer)
            self.sentinel = reader

        def join(self, timeout: float) -> None:
            self.exitcode = NO_ROOM

    worker = Dying()
    reason = loader_processes._failure([worker], ConnectionResetError("Connection reset by peer"))
    os.close(worker.sentinel)
    assert "found no space in /dev/shm" in reason
