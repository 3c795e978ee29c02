"""What happens between steps: validate, save, stop when asked to."""

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
"""Between two writes of ``last.ckpt``: with a slow step and a slow write, still under two
minutes of work at risk."""


GRACE_SECONDS = 10.0
"""For a batch to come after a signal to stop."""


class Validate(Callback):
    """Call ``score`` every so many steps and at the end; at once in a run without steps."""

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
        """Validate after the step, with the teacher already moved."""
        assert isinstance(pl_module, SegmentationModule)
        step = trainer.global_step
        if step % self.every == 0 or step == pl_module.total_steps:
            self.score(pl_module)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Score what is not trained at all."""
        assert isinstance(pl_module, SegmentationModule)
        if pl_module.total_steps == 0:
            self.score(pl_module)


class SaveLast(Callback):
    """Write ``last.ckpt`` by rename, so that a kill at any moment leaves a whole one.

    The first SIGINT or SIGTERM, to whichever process, ends the run after the current step, saved;
    a second SIGINT interrupts at once, as always.

    Args:
        path: the file.
        every: steps between two writes; 0: see ``LONGEST_GAP_SECONDS``.
        check: refuses a state that must not replace the saved one, by raising.
    """

    def __init__(
        self, path: Path, *, every: int, check: Callable[[SegmentationModule], None]
    ) -> None:
        self.path = path
        self.check = check
        self.every = every
        self.stopped_by: str | None = None
        self.saved_step: int | None = None
        self._waiting = True  # for a batch
        self._stuck: threading.Timer | None = None
        self._previous: dict[int, Any] = {}
        self._saved_at = time.monotonic()

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Take over the two signals; a resumed run has the step of its checkpoint saved."""
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
        """A batch has come."""
        self._waiting = False

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save when it is time, at the end, and when asked to stop."""
        gap = time.monotonic() - self._saved_at
        late = trainer.is_global_zero and gap > LONGEST_GAP_SECONDS  # one clock decides for all
        asked = [self.stopped_by is not None, not self.every and late]
        if trainer.world_size > 1:
            # All processes save together and stop together, whichever was asked to.
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
        """Write the whole state of the run."""
        module = trainer.lightning_module
        assert isinstance(module, SegmentationModule)
        self.check(module)
        if trainer.is_global_zero:
            with replacing(self.path) as temporary:
                trainer.save_checkpoint(temporary)
        else:
            trainer.save_checkpoint(self.path)  # takes part; only the first process writes
        self._saved_at = time.monotonic()
        self.saved_step = trainer.global_step

    @property
    def saved(self) -> str:
        """What is there to go on from, for a message."""
        step = self.saved_step
        return "nothing was saved yet" if step is None else f"step {step} is saved"

    @property
    def kept(self) -> str:
        """The same, and how to go on."""
        return f"{self.saved}; go on with: s5mars train --resume {self.path.parent}"

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Give the signals back before Lightning does: the other way round its own would stay."""
        self._give_back()

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Give the signals back; Lightning tears nothing down after an error."""
        self._give_back()

    def _give_back(self) -> None:
        self._forget_stuck()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGALRM:
            raise UserError(f"stopped by {self.stopped_by} while no batch came; {self.kept}")
        if self.stopped_by is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stopped_by = signal.Signals(number).name
        self._forget_stuck()
        self._stuck = threading.Timer(GRACE_SECONDS, self._interrupt)
        self._stuck.daemon = True
        self._stuck.start()

    def _forget_stuck(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()

    def _interrupt(self) -> None:
        """A step ends by itself; what waits for a batch that never comes does not."""
        if self._waiting:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)


class ProgressBar(TQDMProgressBar):
    """Lightning's bar, over the steps of the whole run."""

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Ask a GPU for its loss at every tenth step only: each time the step waits for it."""
        super().setup(trainer, pl_module, stage)
        if trainer.strategy.root_device.type == "cuda":
            self._refresh_rate = 10

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Name the bar, and start it where the run stands, so that the time left is right."""
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
        """End the line of the bar, so that the message after it has a line of its own."""
        if self._train_progress_bar is not None:
            self.train_progress_bar.close()

    def get_metrics(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What stands behind the bar."""
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        return items
