"""Copies of the scored network that a run saves besides its best weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from s5mars.training.module import SegmentationModule

_FOLDER = "snapshots"


class Snapshots(Callback):
    """Keep ``number`` copies, evenly spaced over the steps of a run.

    Args:
        out: folder of the run.
        number: of copies; 0 keeps none.
        save: writes the weights of a module to a path.
    """

    def __init__(
        self, out: Path, *, number: int, save: Callable[[Path, SegmentationModule], None]
    ) -> None:
        self.out = out
        self.number = number
        self.save = save

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save a copy at the end of each part of the run."""
        assert isinstance(pl_module, SegmentationModule)
        step, total = trainer.global_step, pl_module.total_steps
        ends = {part * total // self.number for part in range(1, self.number + 1)}
        if step in ends and trainer.is_global_zero:
            self.save(self.out / _FOLDER / f"step-{step:08d}.safetensors", pl_module)


def snapshots(run: Path) -> list[Path]:
    """Copies that a run has saved, the earliest first."""
    return sorted((run / _FOLDER).glob("step-*.safetensors"))
