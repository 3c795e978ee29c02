"""The loop of a run; Lightning's Fabric gives devices, processes and precision."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from s5mars.errors import UserError, as_typed, first_line
from s5mars.files import replacing
from s5mars.files.reading import require_regular
from s5mars.files.run_folder import CHECKPOINT, run_to_resume
from s5mars.models.synchronised import synchronise
from s5mars.parallel import distributed
from s5mars.training.announce import Display
from s5mars.training.environment import fabric_of
from s5mars.training.feed import Feed
from s5mars.training.finite import require_finite, require_finite_losses
from s5mars.training.lost import LostProcess
from s5mars.training.module import SegmentationModule
from s5mars.training.record import Record
from s5mars.training.signals import InterruptedValidation, StopSignals
from s5mars.training.snapshots import is_snapshot, snapshot_path

VALIDATIONS = 20
"""Number of validations in a run if ``validate_every`` is 0."""

LONGEST_GAP_SECONDS = 90
"""Seconds after which the next finished step is saved."""

SLOW_SECONDS = 5.0
"""A step that takes longer is saved if the write takes less than a tenth of its time."""

CHECK_EVERY = 10
"""Steps between two checks of the loss on an accelerator, because each check waits for the device;
on a CPU every step is checked."""


class Loop:
    """The steps of a run, in one of its processes; the record keeps scores and weights."""

    def __init__(self, module: SegmentationModule, feed: Feed, record: Record) -> None:
        self.module = module
        self.feed = feed
        self.record = record
        self.config = config = module.config
        self.fabric = fabric_of(config)
        self.every = config.validate_every or max(1, math.ceil(module.total_steps / VALIDATIONS))
        self.path = config.out / CHECKPOINT
        self.display = Display(module, validated=len(record.streams.selection), every=self.every)
        self.signals = StopSignals(self.kept)
        self.lost = LostProcess(self.kept)
        self.saved_step: int | None = None
        self._best_step: int | None = None  # of the last weights that were saved as the best
        self._saved_at = time.monotonic()
        self._write_seconds = 0.0

    def run(self, checkpoint: Path | None = None) -> None:
        """Train to the end, or to a signal, from the beginning or a ``last.ckpt``.

        Raises:
            NotFiniteError: if the loss or the weights are not finite.
            LoaderError: if a loader process died.
            UserError: if the checkpoint is damaged, or if a signal ends a wait or a long step.
        """
        fabric, module, signals = self.fabric, self.module, self.signals
        fabric.launch()
        with self.lost.watched(fabric):
            if fabric.world_size > 1:
                synchronise(module.student, fabric.device)
            with fabric.rank_zero_first():  # the first process makes missing object proposals
                self.feed.open_objects()
            self.record.start_clock()  # runs may share the masks, so their time is not the run's
            trained, optimizer = fabric.setup(module, module.optimizer)
            if checkpoint is not None:
                self._load(checkpoint)
            sharing = fabric.world_size // self.config.num_nodes
            with signals, self.display:
                self._score()  # what a stopped run left out
                if self.is_pending:
                    return  # stopped again
                if self._has_new_best:
                    self._save()
                signals.doing = "waiting"
                for batch in self.feed.batches(module.step, sharing=sharing):
                    signals.doing = "step"
                    began = time.monotonic()
                    self.display.begin_step()
                    loss = trained(partial(batch.to, fabric.device))
                    fabric.backward(loss)
                    signals.doing = "busy"
                    module.leave_out_unused()
                    if clip := self.config.clip:
                        fabric.clip_gradients(
                            module, optimizer, max_norm=clip, error_if_nonfinite=False
                        )
                    optimizer.step()
                    optimizer.zero_grad()
                    module.finish_step()
                    took = time.monotonic() - began
                    self._look_at(loss)
                    self._score()
                    self._keep_snapshot()
                    if self._save_or_stop(took):
                        return
                    signals.doing = "waiting"

    @property
    def is_pending(self) -> bool:
        """Whether the current step has to be scored and is not yet."""
        step = self.module.step
        due = step == self.module.total_steps or (step > 0 and step % self.every == 0)
        return due and not any(entry["step"] == step for entry in self.record.history)

    def _look_at(self, loss: torch.Tensor) -> None:
        if seen := self.fabric.device.type == "cpu" or self.module.step % CHECK_EVERY == 0:
            require_finite_losses(self.module)
        self.display.end_step(loss.item() if seen else None)

    def _score(self) -> None:
        """Validate if it is due. A run that was stopped first does it when it is resumed."""
        if not self.is_pending:
            return
        require_finite(self.module)
        self.signals.doing = "scoring"
        with suppress(InterruptedValidation):
            self.signals.end_validation()
            if self.record.score(self.module, between=self.signals.end_validation):
                self._best_step = self.module.step
            self.display.scored(self.record.history[-1])
        self.signals.doing = "busy"

    @property
    def _has_new_best(self) -> bool:
        """Whether the step was scored and is the best one so far.

        A state that does not know of it must not be resumed: if other weights follow, for example
        without an image that is damaged, the best ones would be those of no step of the run.
        """
        return self._best_step == self.module.step

    def _keep_snapshot(self) -> None:
        module, config = self.module, self.config
        due = is_snapshot(module.step, module.total_steps, number=config.snapshots)
        if due and self.fabric.is_global_zero:
            self.record.save_snapshot(snapshot_path(config.out, module.step), module)

    def _save_or_stop(self, took: float) -> bool:
        """Save if it is due after a step of these seconds, or a signal stops; whether one does."""
        step, every = self.module.step, self.config.save_every
        slow = took > max(SLOW_SECONDS, 10 * self._write_seconds)
        late = slow or time.monotonic() - self._saved_at > LONGEST_GAP_SECONDS
        # The clock of one process decides, and a signal to any process ends all of them together.
        late &= self.fabric.is_global_zero and not every
        asked = torch.tensor([bool(self.signals.stopped_by), late]).long()
        stop, due = map(bool, distributed.total(asked).tolist())
        due = due or step == self.module.total_steps or self._has_new_best
        if stop or due or (every and step % every == 0):
            self._save()
        if stop:
            self.fabric.barrier()  # none ends, and may be resumed, before the first has written
            self.signals.stopped_by = self.signals.stopped_by or "a signal to another process"
        return stop

    def _save(self) -> None:
        """Write ``last.ckpt`` atomically, so that it is whole whenever the run is killed."""
        module = self.module
        require_finite(module)
        began = time.monotonic()
        state = {
            "state_dict": module.state_dict(),
            "optimizer_states": [module.optimizer.state_dict()],
            "lr_schedulers": [module.schedule.state_dict()],
            "global_step": module.step,
            "MixedPrecision": self.fabric.strategy.precision.state_dict(),
            "s5mars": {**self.record.state(), **module.records()},
        }
        if self.fabric.is_global_zero:
            write_checkpoint(self.path, state)
        self._saved_at = time.monotonic()
        self._write_seconds = self._saved_at - began
        self.saved_step = module.step

    def _load(self, path: Path) -> None:
        """Restore what ``_save`` has written."""
        module, state = self.module, read_checkpoint(path)
        module.load_state_dict(state["state_dict"])
        module.optimizer.load_state_dict(state["optimizer_states"][0])
        module.schedule.load_state_dict(state["lr_schedulers"][0])
        self.fabric.strategy.precision.load_state_dict(state["MixedPrecision"])
        module.step = self.saved_step = state["global_step"]
        module.restore_records(state["s5mars"])
        self.record.restore(state["s5mars"])

    @property
    def saved(self) -> str:
        """The last saved step, for a message."""
        step = self.saved_step
        return "nothing was saved yet" if step is None else f"step {step} is saved"

    def kept(self) -> str:
        """The last saved step and how to resume from it, for a message."""
        resumed = as_typed(run_to_resume(self.config.out))
        return f"{self.saved}; resume with: s5mars train --resume {resumed}"


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a ``last.ckpt`` atomically.

    A signal handler that raises, such as torch's for a loader process that died, does so after the
    file is written. In the middle it can leave torch's writer open, whose destructor then writes to
    a closed file and aborts the process. Python runs signal handlers in the main thread only, so
    another thread writes.
    """
    with ThreadPoolExecutor(1) as writer:
        writer.submit(_write, path, state).result()


def _write(path: Path, state: Mapping[str, Any]) -> None:
    # torch reports a full disk only for a file that Python has opened.
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a ``last.ckpt``, on the CPU; nothing in it is executed.

    Raises:
        UserError: if the file is damaged or not a regular file, or holds Python objects, which
            s5mars never writes.
    """
    require_regular(path)
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        state["global_step"]
        return state
    except Exception as error:  # a damaged pickle raises any type
        known = error.strerror if isinstance(error, OSError) and error.strerror else error
        reason = first_line(known).partition(". ")[0]
        raise UserError(
            f"{path} is damaged or was not written by s5mars ({reason}): copy it again, or "
            "remove it to start the run again"
        ) from error
