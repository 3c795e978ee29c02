"""Callbacks of a run: validation, saving, stopping on a signal, the progress bar."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar

from s5mars.errors import UserError
from s5mars.files import replacing
from s5mars.parallel import distributed
from s5mars.training.module import SegmentationModule

LONGEST_GAP_SECONDS = 90
"""Longest time between two writes of ``last.ckpt``: even with a slow step and a slow write, less
than two minutes of work can be lost."""

GRACE_SECONDS = 10.0
"""How long to wait for a batch after a signal to stop."""


class Validate(Callback):
    """Call ``score`` every ``every`` steps and at the end; a run without steps is scored once."""

    def __init__(self, score: Callable[[SegmentationModule], None], *, every: int) -> None:
        self.score = score
        self.every = every

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Validate after the step and after the update of the teacher."""
        assert isinstance(pl_module, SegmentationModule)
        step = trainer.global_step
        if step % self.every == 0 or step == pl_module.total_steps:
            self.score(pl_module)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Score a model that is not trained."""
        assert isinstance(pl_module, SegmentationModule)
        if pl_module.total_steps == 0:
            self.score(pl_module)


class SaveLast(Callback):
    """Write ``last.ckpt`` atomically, so that it is whole whenever the run is killed.

    The first SIGINT or SIGTERM, to any process, saves and ends the run after the current step; a
    second SIGINT interrupts at once.

    Args:
        path: path of ``last.ckpt``.
        every: number of steps between two writes; 0: see ``LONGEST_GAP_SECONDS``.
        check: raises if the current state must not replace the saved one.
    """

    def __init__(
        self, path: Path, *, every: int, check: Callable[[SegmentationModule], None]
    ) -> None:
        self.path = path
        self.check = check
        self.every = every
        self.stopped_by: str | None = None
        self.saved_step: int | None = None
        self._waiting = True  # whether the next batch has not arrived
        self._timer: threading.Timer | None = None
        self._previous: dict[int, Any] = {}
        self._saved_at = time.monotonic()

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Install the signal handlers; the checkpoint of a resumed run counts as saved."""
        self._saved_at = time.monotonic()
        self.saved_step = trainer.global_step or None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            self._previous[number] = signal.signal(number, self._request_stop)

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note that a batch has arrived."""
        self._waiting = False

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save when a write is due, at the end, and after a signal."""
        gap = time.monotonic() - self._saved_at
        late = (
            trainer.is_global_zero and gap > LONGEST_GAP_SECONDS
        )  # the clock of one process decides
        asked = [self.stopped_by is not None, not self.every and late]
        if trainer.world_size > 1:
            # All processes save and stop together, whichever of them got the signal.
            flags = torch.tensor(asked, dtype=torch.int64)
            asked = (distributed.total(flags) > 0).tolist()
        stop, due = asked
        due |= bool(self.every) and trainer.global_step % self.every == 0
        if stop or due or trainer.global_step >= trainer.max_steps:
            self.save(trainer)
        if stop:
            self.stopped_by = self.stopped_by or "a signal to another process"
            trainer.should_stop = True
        self._waiting = True

    def save(self, trainer: lightning.Trainer) -> None:
        """Write the state of the run."""
        module = trainer.lightning_module
        assert isinstance(module, SegmentationModule)
        self.check(module)
        if trainer.is_global_zero:
            with replacing(self.path) as temporary:
                trainer.save_checkpoint(temporary)
        else:
            trainer.save_checkpoint(self.path)  # a collective call; only the first process writes
        self._saved_at = time.monotonic()
        self.saved_step = trainer.global_step

    @property
    def saved(self) -> str:
        """The last saved step, for a message."""
        step = self.saved_step
        return "nothing was saved yet" if step is None else f"step {step} is saved"

    @property
    def kept(self) -> str:
        """The last saved step and how to resume from it, for a message."""
        return f"{self.saved}; resume with: s5mars train --resume {self.path.parent}"

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Restore the handlers before Lightning does; otherwise Lightning's would stay."""
        self._restore_handlers()

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Restore the handlers; Lightning does not tear down after an error."""
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        self._cancel_timer()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGALRM:
            raise UserError(f"stopped by {self.stopped_by} while waiting for a batch; {self.kept}")
        if self.stopped_by is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stopped_by = signal.Signals(number).name
        self._cancel_timer()
        self._timer = threading.Timer(GRACE_SECONDS, self._interrupt)
        self._timer.daemon = True
        self._timer.start()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _interrupt(self) -> None:
        """Interrupt a wait for a batch that never arrives; a running step ends by itself."""
        if self._waiting:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar, over the steps of the whole run."""

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Refresh every tenth step on a GPU: reading the loss makes the step wait."""
        super().setup(trainer, pl_module, stage)
        if trainer.strategy.root_device.type == "cuda":
            self._refresh_rate = 10

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Start the bar at the current step, so that the remaining time is right."""
        super().on_train_epoch_start(trainer, pl_module)
        bar = self.train_progress_bar
        bar.set_description("training")
        bar.initial = bar.n = trainer.global_step

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Close the bar, so that an error message starts on its own line."""
        if self._train_progress_bar is not None:
            self.train_progress_bar.close()

    def get_metrics(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The values shown after the bar, without Lightning's version number."""
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        return items
