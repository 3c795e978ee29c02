"""What happens when a process of a run dies: one line that says how to go on, and no hanging."""

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

from s5mars.parallel.workers import ended
from s5mars.training.callbacks import SaveLast

GRACE_SECONDS = 2.0
"""For the main thread to find out by itself, from a collective that fails, before it is ended."""

LOST = 2
"""Exit status of what is left of a run that lost a process."""


class LostProcess(Callback):
    """Watches the processes that this one has started, and in those the one that started them.

    torchrun and SLURM start processes themselves, and watch them themselves.
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
        """Watch from now on."""
        started: list[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
        self._started = list(started)
        # Lightning's own watch kills this process without a word; it ends when its list is empty.
        started.clear()
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if isinstance(environment, LightningEnvironment) and trainer.local_rank > 0:
            self._parent = os.getppid()
        if self._started or self._parent is not None:
            threading.Thread(target=self._watch, args=(trainer,), daemon=True).start()

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """From here on each process ends by itself."""
        self._finished.set()

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """The main thread knows, and says it."""
        self._finished.set()

    def message(self, error: BaseException, *, first: bool) -> str:
        """What to tell the user of a collective that failed; empty where another process does."""
        until = time.monotonic() + GRACE_SECONDS
        while not (reason := self._reason()) and time.monotonic() < until and self._watches:
            time.sleep(0.05)
        if not reason and first:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
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
            return "the first one has ended"
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
            if trainer.local_rank <= 1:  # of several survivors one speaks
                print(f"\ns5mars: {self._line(reason)}", file=sys.stderr, flush=True)
            os._exit(LOST)


def is_lost(error: Exception) -> bool:
    """Whether a collective failed because another process no longer answers."""
    distributed = getattr(dist, "DistError", ())
    return isinstance(error, distributed) or any(
        name in str(error) for name in ("gloo", "NCCL", "Connection closed by peer")
    )
