"""End a distributed run that lost a process, with one line that says how to resume."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import lightning
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback

from s5mars.errors import first_line
from s5mars.parallel.workers import ended
from s5mars.training.callbacks import SaveLast

GRACE_SECONDS = 2.0
"""Time in which the main thread may notice the loss from a failed collective, in seconds."""

LOST = 2
"""Exit status of the remaining processes of a run that lost one."""


class LostProcess(Callback):
    """Watch the child processes or, in a child, the parent process.

    torchrun and SLURM watch the processes that they start.
    """

    def __init__(self, saver: SaveLast, out: Path) -> None:
        self.saver = saver
        self.out = out
        self._started: list[subprocess.Popen[bytes]] = []
        self._parent: int | None = None
        self._finished = threading.Event()

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Start to watch."""
        started: list[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
        self._started = list(started)
        # Lightning's own watcher kills this process silently; an empty list ends it.
        started.clear()
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if isinstance(environment, LightningEnvironment) and trainer.local_rank > 0:
            self._parent = os.getppid()
        if self._started or self._parent is not None:
            threading.Thread(target=self._watch, args=(trainer,), daemon=True).start()

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Stop watching: processes now end normally."""
        self._finished.set()

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Stop watching: the main thread reports the error."""
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
        return f"the run has lost a process ({reason}); {self.saver.kept}"

    def _watch(self, trainer: lightning.Trainer) -> None:
        while not self._finished.wait(0.2):
            if not (reason := self._reason()):
                continue
            if self._finished.wait(GRACE_SECONDS):
                return
            self._end_the_others()
            if trainer.local_rank <= 1:  # only one survivor reports
                print(f"\ns5mars: {self._line(reason)}", file=sys.stderr, flush=True)
            os._exit(LOST)


def is_lost(error: Exception) -> bool:
    """Whether a collective failed because another process no longer answers."""
    distributed = getattr(dist, "DistError", ())
    return isinstance(error, distributed) or any(
        name in str(error) for name in ("gloo", "NCCL", "Connection closed by peer")
    )
