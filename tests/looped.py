"""The loop of a run, with one batch at every step and without scores."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from s5mars.training.loop import Loop
from s5mars.training.module import SegmentationModule
from s5mars.types import Batch

STOPPED = "stopped.ckpt"  # the last.ckpt of step ``stop``


def fit(
    module: SegmentationModule, batch: Batch, out: Path, *, stop: int, resumed: Path | None = None
) -> SegmentationModule:
    """Train a module to its end, on the CPU.

    Args:
        module: what is trained.
        batch: of every step.
        out: where ``STOPPED`` and last.ckpt are left.
        stop: the step of which ``STOPPED`` is.
        resumed: checkpoint from which the run goes on.
    """
    module.config = replace(
        module.config, out=out, save_every=stop, accelerator="cpu", devices=1, precision="fp32"
    )

    class SameBatch:
        def open_objects(self) -> None:
            pass

        def batches(self, start: int, *, sharing: int) -> Iterator[Batch]:
            for step in range(start, module.total_steps):
                if step == stop > start:
                    shutil.copy(out / "last.ckpt", out / STOPPED)
                yield batch

    class NoScores:
        streams = SimpleNamespace(selection=())
        history: list[dict[str, Any]]

        def __init__(self) -> None:
            self.history = []

        def start_clock(self) -> None:
            pass

        def score(self, module: SegmentationModule, **_: Any) -> None:
            entry = {"step": module.step, "loss": None, "validation": {"mIoU": None}}
            self.history.append(entry)

        def state(self) -> dict[str, Any]:
            return {"history": self.history}

        def restore(self, state: dict[str, Any]) -> None:
            self.history = state["history"]

    Loop(module, SameBatch(), NoScores()).run(resumed)  # type: ignore[arg-type]
    assert module.step == module.total_steps
    return module
