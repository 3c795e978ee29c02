"""Callbacks of a run: validation, saving, stopping on a signal, the progress bar."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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

SLOW_SECONDS = 5.0
"""A step that takes longer is saved if the write takes less than a tenth of its time."""

GRACE_SECONDS = 4.0
"""How long a step or a wait for a batch may go on after a signal to stop."""

LAST_SECONDS = 2.0
"""How much longer it may take until Python can interrupt it; a backward pass is one long call."""

ABANDONED = 2
"""Exit status of a process that ended in the middle of a step."""


class Validate(Callback):
    """Call ``score`` every ``every`` steps and at the end; a run without steps is scored once.

    Args:
        score: scores a module, unless it raises ``InterruptedValidation``.
        every: number of steps between two scores.
        saver: says when the run has to stop. The score of that step is then left to the resumed
            run, which begins with it.
    """

    def __init__(
        self, score: Callable[[SegmentationModule], None], *, every: int, saver: SaveLast
    ) -> None:
        self.score = score
        self.every = every
        self.saver = saver

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Give the score that a stopped run left out."""
        assert isinstance(pl_module, SegmentationModule)
        if self.is_pending(pl_module):
            self._score(pl_module)

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
        # Several processes score together, so all of them have to.
        if self.is_pending(pl_module) and not (self.saver.stopped_by and trainer.world_size == 1):
            self._score(pl_module)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Score a model without steps, or one whose steps are done but not its last score."""
        assert isinstance(pl_module, SegmentationModule)
        if self.is_pending(pl_module) and not self.saver.stopped_by:
            self._score(pl_module)

    def is_pending(self, module: SegmentationModule) -> bool:
        """Whether the current step has to be scored and is not yet."""
        step = module.global_step
        due = step == module.total_steps or (step > 0 and step % self.every == 0)
        return due and not any(entry["step"] == step for entry in module.history)

    def _score(self, module: SegmentationModule) -> None:
        with suppress(InterruptedValidation), self.saver.during("scoring"):
            self.score(module)


class InterruptedValidation(Exception):  # noqa: N818 - nothing is wrong
    """A validation ends early, because the run has to stop."""


class SaveLast(Callback):
    """Write ``last.ckpt`` atomically, so that it is whole whenever the run is killed.

    The first SIGINT or SIGTERM, to any process, saves and ends the run after the current step, and
    within ten seconds if the run has one process: what takes longer is given up. A second SIGINT
    interrupts at once.

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
        self._doing = "waiting"  # for a batch, "step" (which can be given up), "scoring" or "busy"
        self._alone = True  # whether no other process trains
        self._step_began = 0.0
        self._write_seconds = 0.0
        self._wakeup: tuple[int, int] | None = (
            None  # the pipe of signals, and what was in its place
        )
        self._ended = threading.Event()
        self._previous: dict[int, Any] = {}
        self._saved_at = time.monotonic()

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Install the signal handlers; the checkpoint of a resumed run counts as saved."""
        self._saved_at = time.monotonic()
        self._alone = trainer.world_size == 1
        self.saved_step = trainer.global_step or None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            self._previous[number] = signal.signal(number, self._request_stop)
        self._watch_signals()

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note that a batch has arrived."""
        self._doing = "step"
        self._step_began = time.monotonic()

    def on_before_optimizer_step(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Note that the weights begin to change."""
        self._doing = "busy"

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Note what happens instead of the current step."""
        before, self._doing = self._doing, what
        began = time.monotonic()
        try:
            yield
        finally:
            self._doing = before
            self._step_began += time.monotonic() - began

    def raise_if_stopped(self) -> None:
        """End a validation, if a signal asks this only process to stop.

        Raises:
            InterruptedValidation: if so.
        """
        if self._alone and self.stopped_by is not None:
            raise InterruptedValidation

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save when a write is due, at the end, and after a signal."""
        now = time.monotonic()
        took = now - self._step_began
        slow = took > max(SLOW_SECONDS, 10 * self._write_seconds)
        # The clock of one process decides.
        late = trainer.is_global_zero and (slow or now - self._saved_at > LONGEST_GAP_SECONDS)
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
        self._doing = "waiting"

    def save(self, trainer: lightning.Trainer) -> None:
        """Write the state of the run."""
        module = trainer.lightning_module
        assert isinstance(module, SegmentationModule)
        self.check(module)
        began = time.monotonic()
        if trainer.is_global_zero:
            with replacing(self.path) as temporary:
                trainer.save_checkpoint(temporary)
        else:
            trainer.save_checkpoint(self.path)  # a collective call; only the first process writes
        self._saved_at = time.monotonic()
        self._write_seconds = self._saved_at - began
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
        self._ended.set()
        if self._wakeup is not None:
            ours, previous = self._wakeup
            signal.set_wakeup_fd(previous)
            os.close(ours)
            self._wakeup = None
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGALRM:
            if self._can_be_given_up:  # it may have ended in the meantime
                raise UserError(self._given_up)
            return
        if self.stopped_by is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stopped_by = signal.Signals(number).name

    def _watch_signals(self) -> None:
        """Start a thread that learns of a signal at once.

        Python calls a handler only after the main thread's current call, and a backward pass is one
        call that may take minutes.
        """
        self._ended.clear()
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        self._wakeup = writing, signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), daemon=True).start()

    def _watch(self, reading: int) -> None:
        with open(reading, "rb", buffering=0) as signals:
            while number := signals.read(1):
                if number[0] in (signal.SIGINT, signal.SIGTERM):
                    self._end_soon(signal.Signals(number[0]).name)
                    return

    def _end_soon(self, name: str) -> None:
        """Interrupt a step or a wait for a batch that goes on; then end the process, if alone."""
        if self._ended.wait(GRACE_SECONDS):
            return
        if self._can_be_given_up:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        if not self._alone or self._ended.wait(LAST_SECONDS):
            return
        while self._doing == "busy":  # with what must not be lost, and takes moments
            if self._ended.wait(0.1):
                return
        self.stopped_by = name
        print(f"\ns5mars: {self._given_up}", file=sys.stderr, flush=True)
        os._exit(ABANDONED)  # the weights and the batch of the step are lost

    @property
    def _can_be_given_up(self) -> bool:
        return self._doing == "waiting" or (self._doing == "step" and self._alone)

    @property
    def _given_up(self) -> str:
        where = {
            "waiting": "while waiting for a batch",
            "step": "in the middle of a step",
            "scoring": "in the middle of a validation",
        }.get(self._doing, "")
        return f"stopped by {self.stopped_by} {where}; {self.kept}"


def _tell_nobody() -> None:
    """Signals to children that are forked, such as loader processes, are none to this process."""
    with suppress(ValueError):  # forked by another thread than the main one, which has no pipe
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_tell_nobody)


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
