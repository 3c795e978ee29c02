"""Steps as ``s5mars train`` takes them: with Fabric, its checks, and the progress bar."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from s5mars.comparison.step import Step
from s5mars.training.loop import Loop


def times_of_steps(
    step: Step, batches: Iterable[Any], count: int, clock: Callable[[], float], **settings: Any
) -> list[float]:
    """What a clock shows when each of ``count`` steps begins.

    Args:
        step: whose networks are trained.
        batches: at least ``count``.
        count: fewer than the module's steps.
        clock: such as ``time.perf_counter``.
        settings: of the run that differ, such as ``precision``.
    """
    times: list[float] = []

    class Feed:
        def open_objects(self) -> None: ...

        def batches(self, start: int, *, sharing: int) -> Iterator[Any]:
            for _, batch in zip(range(count), batches, strict=False):
                times.append(clock())
                if len(times) == count:
                    loop.signals.stopped_by = "the benchmark"
                yield batch

    with tempfile.TemporaryDirectory() as out:
        changed = {"out": Path(out), "validate_every": 10**9, "devices": 1, **settings}
        step.module.config = replace(step.module.config, **changed)
        no_split = SimpleNamespace(selection=())
        record: Any = SimpleNamespace(
            streams=no_split, start_clock=lambda: None, history=[], state=dict
        )
        loop = Loop(step.module, Feed(), record)  # type: ignore[arg-type]
        with contextlib.redirect_stderr(io.StringIO()):
            loop.run()
    return times
