"""End a distributed run that lost a process, with one line that says how to resume."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from s5mars.errors import first_line
from s5mars.parallel.workers import ended

GRACE_SECONDS = 2.0
"""Time in which the main thread may notice the loss from a failed collective, in seconds."""

LOST = 2
"""Exit status of the remaining processes of a run that lost one."""


class LostProcess:
    """Watch the child processes or, in a child, the parent process.

    torchrun and SLURM watch the processes that they start. ``kept`` says what was saved and how to
    resume from it.
    """

    def __init__(self, kept: Callable[[], str]) -> None:
        self._kept = kept
        self._started: list[subprocess.Popen[bytes]] = []
        self._parent: int | None = None
        self._finished = threading.Event()

    @contextmanager
    def watched(self, fabric: Fabric) -> Iterator[None]:
        """Watch during a block, after the launch; after it, or an error, processes end normally."""
        started: list[subprocess.Popen[bytes]] = getattr(fabric.strategy.launcher, "procs", [])
        self._started = list(started)
        # Lightning's own watcher kills this process silently; an empty list ends it.
        started.clear()
        environment = getattr(fabric.strategy, "cluster_environment", None)
        if isinstance(environment, LightningEnvironment) and fabric.local_rank > 0:
            self._parent = os.getppid()
        if self._watches:
            threading.Thread(target=self._watch, args=(fabric.local_rank,), daemon=True).start()
        try:
            yield
        except KeyboardInterrupt:
            self._end_the_others()
            raise
        finally:
            self._finished.set()

    def message(self, error: BaseException, *, first: bool) -> str:
        """The message for a failed collective; empty if another process reports it."""
        until = time.monotonic() + GRACE_SECONDS
        while not (reason := self._reason()) and time.monotonic() < until and self._watches:
            time.sleep(0.05)
        if not reason and first:
            reason = first_line(error)
        self._end_the_others()
        return self._line(reason) if reason else ""

    def _end_the_others(self) -> None:
        for process in self._started:
            process.kill()

    @property
    def _watches(self) -> bool:
        return bool(self._started) or self._parent is not None

    def _reason(self) -> str:
        for process in self._started:
            if status := process.poll():
                return ended(status)
        if self._parent is not None and os.getppid() != self._parent:
            return "the first process has ended"
        return ""

    def _line(self, reason: str) -> str:
        return f"the run has lost a process ({reason}); {self._kept()}"

    def _watch(self, local_rank: int) -> None:
        while not self._finished.wait(0.2):
            if not (reason := self._reason()):
                continue
            if self._finished.wait(GRACE_SECONDS):
                return
            self._end_the_others()
            if local_rank <= 1:  # only one survivor reports
                print(f"\ns5mars: {self._line(reason)}", file=sys.stderr, flush=True)
            os._exit(LOST)


def is_lost(error: Exception) -> bool:
    """Whether a collective failed because another process no longer answers."""
    distributed = getattr(dist, "DistError", ())
    return isinstance(error, distributed) or any(
        name in str(error) for name in ("gloo", "NCCL", "Connection closed by peer")
    )
