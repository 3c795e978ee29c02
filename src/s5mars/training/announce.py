"""Print what a run will do, how long it will take, and its progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from s5mars.data.dataset import Dataset
from s5mars.models.tuning import describe_network
from s5mars.parallel import distributed
from s5mars.settings.config import TrainConfig
from s5mars.text.numbers import duration, plural
from s5mars.training.class_biases import no_class_biases
from s5mars.training.environment import device_kind
from s5mars.training.module import SegmentationModule
from s5mars.training.streams import Streams, no_alignment

MEASURED_STEPS = 20
"""Number of steps after which the time of a run is estimated."""

UNMEASURED_STEPS = 3
"""Number of first steps that are not measured: memory is allocated, and loaders start."""

OF_POOL = 2.6
"""Approximate factor on the time of a step with as many crops of a pool, measured for *S5Mars*."""

LONG_SECONDS = 3600
"""Expected duration above which options for a shorter run are shown."""


def plan(
    config: TrainConfig, module: SegmentationModule, dataset: Dataset, streams: Streams
) -> str:
    """Describe what a run will do, one line per topic."""
    names = dataset.taxonomy.names
    labelled, pool = len(streams.labelled), streams.pool
    others = [sample for sample in pool or () if sample.mask is None]
    unlabelled = f"{len(others):,} without labels" if pool is not None else "no pool"
    tested = [f"{len(dataset.splits.get(s, ())):,} {s}" for s in ("val", "test")]
    crops = f"{config.batch} labelled{f' and {config.batch} pool' if pool is not None else ''}"
    lines = [
        f"run: {config.out}, {config.method}, on {_device(device_kind(config.accelerator))}",
        *describe_network(module.student, config),
        f"classes: {_shares(streams, names)}",
        f"images: {labelled:,} labelled, {unlabelled}, {', '.join(tested)}",
    ]
    if module.pool_crops:
        lines.append(
            f"pool: {len(pool or ()):,} images; the run uses {module.pool_crops:,} crops of "
            f"them, from step {module.pool_from + 1} on"
        )
        if note := no_alignment(config, streams):
            lines.append(f"alignment: {note}")
    if note := no_class_biases(config, streams):
        lines.append(f"class biases: none, because {note}")
    lines.append(
        f"steps: {module.total_steps:,} of {crops} crops of {config.crop} pixels, at resolution "
        f"{config.resolution}"
    )
    return "\n".join(lines)


class Display:
    """Show the progress of a run from its first process.

    It is a bar in a terminal, otherwise a line per validation.

    After twenty steps, and again after twenty with the pool, it says how long the run will take.

    ``validated`` is the number of images of a validation, ``every`` the steps from one to the next.
    """

    def __init__(self, module: SegmentationModule, *, validated: int, every: int) -> None:
        self.module = module
        self.validated = validated
        self.every = every
        self._measured_from: int | None = None  # the step
        self._began = self._ended = 0.0

    def __enter__(self) -> Display:
        terminal = sys.stdout.isatty() and sys.stderr.isatty()
        self._first = distributed.rank() == 0
        self._lines = self._first and not terminal
        self._since = time.monotonic()
        self._paced_from, self._paced_since = self.module.step, self._since
        self._bar = tqdm(
            desc="training", total=self.module.total_steps, initial=self.module.step,
            disable=not (self._first and terminal),
        )  # fmt: skip
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()  # an error message starts on its own line

    def begin_step(self) -> None:
        """Start the clock, and restart it at the first step that uses the pool."""
        step = self.module.step
        if self._measured_from is None or step == self.module.pool_from > 0:
            self._measured_from = step
            self._paced_from, self._paced_since = step, time.monotonic()
        if step in (self._measured_from, self._measured_from + UNMEASURED_STEPS):
            self._began = time.monotonic()

    def end_step(self, loss: float | None) -> None:
        """Move the bar, and say how long it will take if enough steps are measured and left.

        A loss, that of the step in this process, replaces the bar's.
        """
        self._ended = time.monotonic()
        self._bar.update()
        if loss is not None:
            self._bar.set_postfix(loss=f"{loss:.3f}")
        step, total = self.module.step, self.module.total_steps
        measured = step - (self._measured_from or 0) == MEASURED_STEPS
        if not (measured and total - step >= MEASURED_STEPS and self._first):
            return
        if self.module.device.type == "cuda":
            torch.cuda.synchronize()
        each = (time.monotonic() - self._began) / (MEASURED_STEPS - UNMEASURED_STEPS)
        tqdm.write(self._words(each), file=sys.stderr)

    def _words(self, each: float) -> str:
        step, total = self.module.step, self.module.total_steps
        seconds = self._left(each)
        about = f"{each:.2g} s per step, about {duration(seconds)} left"
        if self.validated:
            validations = -(-(total - step) // self.every)
            about += f", and {plural(validations, 'validation')} on "
            about += plural(self.validated, "image")
        if seconds > LONG_SECONDS:
            shorter = max(50, int(total * LONG_SECONDS / seconds) // 50 * 50)
            about += "; for a shorter run use"
            if self.module.config.steps is not None and shorter < total:
                about += f" --steps {shorter} (about {duration(seconds * shorter / total)}), or"
            about += " a smaller --crop, --resolution or --model"
        return about

    def _left(self, each: float) -> float:
        """Seconds for the steps that are left, where one takes ``each`` now."""
        step, total, pool_from = self.module.step, self.module.total_steps, self.module.pool_from
        if step > pool_from:
            return each * (total - step)
        ratio = OF_POOL if pool_from else 1.0
        return each * (pool_from - step + ratio * (total - pool_from))

    def scored(self, entry: Mapping[str, Any]) -> None:
        """Print a line for a validation, whose record is ``entry``, where there is no bar."""
        now = time.monotonic()
        self._began += now - self._ended  # validations are announced apart from the steps
        if not self._lines:
            return
        total, step = self.module.total_steps, self.module.step
        seconds = now - self._since
        left = self._left((now - self._paced_since) / max(1, step - self._paced_from))
        score = entry["validation"]["mIoU"]
        said = "" if score is None else f", mIoU {score:.2f} % on {self.module.config.select_on}"
        loss = "" if entry["loss"] is None else f", loss {entry['loss']:.3f}"
        rest = f", about {duration(left)} left" if left else ""
        print(
            f"step {step} of {total}{loss}{said}, {duration(seconds)}{rest}",
            file=sys.stderr, flush=True,
        )  # fmt: skip


def _device(kind: str) -> str:
    if kind == "cuda":
        return f"a GPU ({torch.cuda.get_device_name(0)})"
    return "a CPU" if kind == "cpu" else kind


def _shares(streams: Streams, names: Sequence[str]) -> str:
    """Share of each class in the labelled area, the largest first, and classes without a label."""
    assert streams.areas is not None  # they are always known where streams are chosen
    areas = streams.areas.sum(0)
    order = np.argsort(-areas, kind="stable")
    shown = [f"{names[i]} {100 * areas[i] / areas.sum():.1f} %" for i in order if areas[i]]
    absent = [name for name, area in zip(names, areas, strict=True) if not area]
    return ", ".join(shown) + (f"; without a label: {', '.join(absent)}" if absent else "")
