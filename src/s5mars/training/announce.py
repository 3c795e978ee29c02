"""Print what a run will do, how long it will take, and its progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from s5mars.data.dataset import Dataset
from s5mars.settings.config import TrainConfig
from s5mars.training.module import SegmentationModule
from s5mars.training.streams import Streams

MEASURED_STEPS = 20
"""Number of steps after which the time of a run is estimated."""

UNMEASURED_STEPS = 3
"""Number of first steps that are not measured: memory is allocated, and loaders start."""

OF_POOL = 2.6
"""Approximate factor on the time of a step with as many crops of a pool, measured for *S5Mars*."""

LONG_SECONDS = 3600
"""Expected duration above which options for a shorter run are shown."""


def plan(
    config: TrainConfig,
    module: SegmentationModule,
    dataset: Dataset,
    streams: Streams,
    *,
    kind: str,
    network: Sequence[str],
) -> str:
    """Describe what a run will do, one line per topic.

    Args:
        config: settings of the run.
        module: its networks.
        dataset: its data.
        streams: its images.
        kind: of its device, such as ``cpu``.
        network: lines about its network and where that starts from.
    """
    names = dataset.taxonomy.names
    labelled, pool = len(streams.labelled), streams.pool
    others = [sample for sample in pool or () if sample.mask is None]
    unlabelled = f"{len(others):,} without labels" if pool is not None else "no pool"
    tested = [f"{len(dataset.splits.get(s, ())):,} {s}" for s in ("val", "test")]
    crops = f"{config.batch} labelled{f' and {config.batch} pool' if pool is not None else ''}"
    lines = [
        f"run: {config.out}, {config.method}, on {_device(kind)}",
        *network,
        f"classes: {_shares(streams, names)}",
        f"images: {labelled:,} labelled, {unlabelled}, {', '.join(tested)}",
    ]
    if module.pool_crops:
        lines.append(
            f"pool: {len(pool or ()):,} images; the run uses {module.pool_crops:,} crops of "
            f"them, from step {module.pool_from + 1} on"
        )
        if streams.coverage < config.alignment_coverage:
            lines.append(
                f"alignment: off, since {100 * streams.coverage:.0f} % of the pixels of the "
                f"labelled crops have a label (--alignment-coverage {config.alignment_coverage:g})"
            )
    lines.append(
        f"steps: {module.total_steps:,} of {crops} crops of {config.crop} pixels, at resolution "
        f"{config.resolution}"
    )
    return "\n".join(lines)


class Announce(Callback):
    """Print the expected duration after twenty steps, and again after twenty steps with the pool.

    Args:
        config: settings of the run.
        validated: number of images of a validation.
        every: number of steps between validations.
        say: prints a line.
    """

    def __init__(
        self, config: TrainConfig, *, validated: int, every: int, say: Callable[[str], None]
    ) -> None:
        self.config = config
        self.validated = validated
        self.every = every
        self.say = say
        self._began: float | None = None
        self._first = 0  # step at which the measurement began

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Start to measure; start again at the first step that uses the pool."""
        assert isinstance(pl_module, SegmentationModule)
        if self._began is None or trainer.global_step == pl_module.pool_from > 0:
            self._began, self._first = time.monotonic(), trainer.global_step
        elif trainer.global_step == self._first + UNMEASURED_STEPS:
            self._began = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Print it if enough steps are measured and left."""
        assert isinstance(pl_module, SegmentationModule)
        step = trainer.global_step
        left = pl_module.total_steps - step
        if step != self._first + MEASURED_STEPS or left < MEASURED_STEPS or self._began is None:
            return
        if not trainer.is_global_zero:
            return
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        each = (time.monotonic() - self._began) / (MEASURED_STEPS - UNMEASURED_STEPS)
        self.say(self._words(each, step, pl_module))

    def _words(self, each: float, step: int, module: SegmentationModule) -> str:
        total, before_pool = module.total_steps, max(0, module.pool_from - step)
        ratio = OF_POOL if before_pool else 1.0
        seconds = each * (before_pool + ratio * (total - step - before_pool))
        about = f"{each:.2g} s per step, about {words(seconds)} left"
        if self.validated:
            validations = -(-(total - step) // self.every)
            about += f", and {validations} validations on {self.validated} images"
        if seconds > LONG_SECONDS:
            shorter = max(50, int(total * LONG_SECONDS / seconds) // 50 * 50)
            about += "; for a shorter run use"
            if self.config.steps is not None and shorter < total:
                about += f" --steps {shorter} (about {words(seconds * shorter / total)}), or"
            about += " a smaller --crop, --resolution or --model"
        return about


class Lines(Callback):
    """Print one line per validation if standard error is not a terminal."""

    def __init__(self, *, split: str) -> None:
        self.split = split
        self._said = 0
        self._since = time.monotonic()
        self._from = 0

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Start the clock; a resumed run does not repeat earlier lines."""
        assert isinstance(pl_module, SegmentationModule)
        self._said, self._since = len(pl_module.history), time.monotonic()
        self._from = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Print the last validation, if there is a new one."""
        assert isinstance(pl_module, SegmentationModule)
        if len(pl_module.history) == self._said or not trainer.is_global_zero:
            return
        self._said = len(pl_module.history)
        entry, total = pl_module.history[-1], pl_module.total_steps
        seconds = time.monotonic() - self._since
        left = seconds / (trainer.global_step - self._from) * (total - trainer.global_step)
        score = entry["validation"]["mIoU"]
        said = "" if score is None else f", mIoU {score:.2f} % on {self.split}"
        loss = "" if entry["loss"] is None else f", loss {entry['loss']:.3f}"
        rest = f", about {words(left)} left" if left else ""
        print(
            f"step {entry['step']} of {total}{loss}{said}, {words(seconds)}{rest}",
            file=sys.stderr, flush=True,
        )  # fmt: skip


def words(seconds: float) -> str:
    """``3725`` → ``"1 h 2 min"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _device(kind: str) -> str:
    if kind == "cuda":
        return f"a GPU ({torch.cuda.get_device_name(0)})"
    return "a CPU" if kind == "cpu" else kind


def _shares(streams: Streams, names: Sequence[str]) -> str:
    """Share of each class in the labelled area, the largest first, and classes without a label."""
    if streams.areas is None:
        return ", ".join(names)
    areas = streams.areas.sum(0)
    order = np.argsort(-areas, kind="stable")
    shown = [f"{names[i]} {100 * areas[i] / areas.sum():.1f} %" for i in order if areas[i]]
    absent = [name for name, area in zip(names, areas, strict=True) if not area]
    return ", ".join(shown) + (f"; without a label: {', '.join(absent)}" if absent else "")
