"""Batches by process and from any step."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch.utils.data import DataLoader

from s5mars.classes import MaskCoding
from s5mars.data.sampler import Balance
from s5mars.parallel import distributed
from s5mars.parallel.cores import usable_cores
from s5mars.proposals.draw import Coverage
from s5mars.proposals.prepare import object_store
from s5mars.proposals.store import ObjectStore
from s5mars.settings.config import TrainConfig
from s5mars.training.loader import LoaderSettings, TrainingBatches
from s5mars.training.loader_processes import training_loader
from s5mars.training.streams import Streams, crop_settings
from s5mars.types import Batch


@dataclass(kw_only=True, eq=False)
class Feed:
    """The batches of a run."""

    config: TrainConfig
    streams: Streams
    coding: MaskCoding
    total_steps: int
    pool_from: int  # first step with pool and objects
    with_objects: bool
    objects: ObjectStore | None = field(default=None, init=False)
    coverage: Coverage | None = field(default=None, init=False)

    def batches(self, start: int, *, sharing: int = 1) -> DataLoader[Batch]:
        """Batches of this process from a step on, counted from 0.

        ``sharing`` is the number of training processes on this machine.
        """
        settings = LoaderSettings(
            seed=self.config.seed,
            batch=self.config.batch,
            crop=crop_settings(self.config),
            coding=self.coding,
            objects=self.objects,
            balance=self._balance(),
            pool_from=self.pool_from,
            rank=distributed.rank(),
            world=distributed.number(),
        )
        streams, steps = self.streams, self.total_steps
        batches = TrainingBatches(streams.labelled, streams.pool, steps=steps, settings=settings)
        workers = loader_workers(self.config.workers, sharing=sharing)
        return training_loader(batches, start=start, workers=workers, sharing=sharing)

    def open_objects(self) -> None:
        """Open the object proposals; make them if they are missing."""
        if self.with_objects:
            self.objects, self.coverage = object_store(
                self.config.objects, self.streams.labelled, cache=objects_of(self.config)
            )

    def _balance(self) -> Balance | None:
        share, areas = self.config.balanced_crops, self.streams.areas
        return Balance.of(areas, share=share) if share and areas is not None else None


def objects_of(config: TrainConfig) -> Path:
    """Where a run keeps the object masks that it makes or imports."""
    return config.object_cache or config.out / "objects"


def loader_workers(asked: int, sharing: int = 1) -> int:
    """Number of loader processes; -1 asks for one fewer than the cores of a process, at most 4.

    ``sharing`` is the number of training processes that share the cores.
    """
    if asked >= 0:
        return asked
    return max(0, min(4, usable_cores() // sharing - 1))
