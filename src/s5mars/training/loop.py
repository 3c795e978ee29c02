"""The loop of a run; Lightning's Fabric gives devices, processes and precision."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from s5mars.files import replacing
from s5mars.models.synchronised import synchronise
from s5mars.parallel import distributed
from s5mars.training.environment import fabric_of
from s5mars.training.feed import Feed
from s5mars.training.finite import require_finite, require_finite_losses
from s5mars.training.lost import LostProcess
from s5mars.training.module import SegmentationModule
from s5mars.training.record import Record
from s5mars.training.signals import StopSignals
from s5mars.training.snapshots import is_snapshot, snapshot_path

VALIDATIONS = 20
"""Number of validations in a run if ``validate_every`` is 0."""

LONGEST_GAP_SECONDS = 90
"""Longest time between two writes of ``last.ckpt``: even with a slow step and a slow write, less
than two minutes of work can be lost."""

SELDOM = 10
"""Steps between two looks at the loss on an accelerator, which each make the step wait."""


class Loop:
    """The steps of a run, in one of its processes.

    Args:
        module: the module to train.
        feed: its batches.
        record: writes scores and weights on the way.
    """

    def __init__(self, module: SegmentationModule, feed: Feed, record: Record) -> None:
        self.module = module
        self.feed = feed
        self.record = record
        self.config = config = module.config
        self.fabric = fabric_of(config)
        self.every = config.validate_every or max(1, math.ceil(module.total_steps / VALIDATIONS))
        self.path = config.out / "last.ckpt"
        self.saved_step: int | None = None
        self.stopped_by = ""
        self.signals = StopSignals()
        self.lost = LostProcess()
        self._saved_at = time.monotonic()

    def run(self, state: dict[str, Any] | None = None) -> None:
        """Train to the end, or to a signal.

        Args:
            state: content of the ``last.ckpt`` from which the run continues.

        Raises:
            NotFiniteError: if the loss or the weights are not finite.
            LoaderError: if a loader process died.
            NoBatchError: if no batch comes after a signal.
        """
        fabric, module, config = self.fabric, self.module, self.config
        fabric.launch()
        with self.lost.watched(fabric, lambda: self.kept):
            if fabric.world_size > 1:
                synchronise(module.student, fabric.device)
            with fabric.rank_zero_first():  # the first process makes missing object proposals
                self.feed.open_objects()
            trained, optimizer = fabric.setup(module, module.optimizer)
            if state is not None:
                self._load(state)
            if not module.total_steps:
                self._score()
            sharing = fabric.world_size // config.num_nodes
            bar = tqdm(
                desc="training", total=module.total_steps, initial=module.step,
                disable=not fabric.is_global_zero,
            )  # fmt: skip
            with self.signals, bar:
                batches = iter(self.feed.batches(module.step, sharing=sharing))
                while module.step < module.total_steps and not self.stopped_by:
                    self.signals.waiting = True
                    batch = next(batches)
                    self.signals.waiting = False
                    loss = trained(partial(batch.to, fabric.device))
                    fabric.backward(loss)
                    if config.clip:
                        fabric.clip_gradients(
                            module, optimizer, max_norm=config.clip, error_if_nonfinite=False
                        )
                    optimizer.step()
                    optimizer.zero_grad()
                    module.schedule.step()
                    module.finish_step()
                    self._look(loss, bar)
                    self._write()

    def _look(self, loss: torch.Tensor, bar: Any) -> None:
        bar.update()
        if self.fabric.device.type == "cpu" or self.module.step % SELDOM == 0:
            require_finite_losses(self.module)
            bar.set_postfix(loss=f"{loss.item():.3f}")

    def _write(self) -> None:
        """Validate, keep a snapshot and save, each if it is due."""
        module, config = self.module, self.config
        step, last = module.step, module.total_steps
        if step % self.every == 0 or step == last:
            self._score()
        if is_snapshot(step, last, number=config.snapshots) and self.fabric.is_global_zero:
            self.record.save_snapshot(snapshot_path(config.out, step), module)
        # One clock decides, and a signal to any process ends all of them together.
        late = (
            self.fabric.is_global_zero and time.monotonic() - self._saved_at > LONGEST_GAP_SECONDS
        )
        asked = torch.tensor([bool(self.signals.stopped_by), not config.save_every and late])
        stop, due = (distributed.total(asked.long()) > 0).tolist()
        if stop or due or step == last or (config.save_every and step % config.save_every == 0):
            self._save()
        if stop:
            self.stopped_by = self.signals.stopped_by or "a signal to another process"

    def _score(self) -> None:
        require_finite(self.module)
        self.record.score(self.module)

    def _save(self) -> None:
        """Write ``last.ckpt`` atomically, so that it is whole whenever the run is killed."""
        module = self.module
        require_finite(module)
        state = {
            "state_dict": module.state_dict(),
            "optimizer_states": [module.optimizer.state_dict()],
            "lr_schedulers": [module.schedule.state_dict()],
            "global_step": module.step,
            "MixedPrecision": self.fabric.strategy.precision.state_dict(),
            "s5mars": module.records(),
        }
        if self.fabric.is_global_zero:
            with replacing(self.path) as temporary:
                torch.save(state, temporary)
        self._saved_at = time.monotonic()
        self.saved_step = module.step

    def _load(self, state: dict[str, Any]) -> None:
        """Restore what ``_save``, or Lightning's Trainer in earlier versions, has written."""
        module = self.module
        module.load_state_dict(state["state_dict"])
        module.optimizer.load_state_dict(state["optimizer_states"][0])
        module.schedule.load_state_dict(state["lr_schedulers"][0])
        self.fabric.strategy.precision.load_state_dict(state.get("MixedPrecision", {}))
        module.step = self.saved_step = state["global_step"]
        module.restore_records(state["s5mars"])

    @property
    def saved(self) -> str:
        """The last saved step, for a message."""
        step = self.saved_step
        return "nothing was saved yet" if step is None else f"step {step} is saved"

    @property
    def kept(self) -> str:
        """The last saved step and how to resume from it, for a message."""
        return f"{self.saved}; resume with: s5mars train --resume {self.config.out}"
