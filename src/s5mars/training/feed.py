"""Batches for Lightning, by process and from any step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields, replace

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from s5mars.classes import MaskCoding
from s5mars.data.loader import LoaderSettings, TrainingBatches, training_loader
from s5mars.data.sampler import Balance
from s5mars.proposals.draw import Coverage, ObjectFilter
from s5mars.proposals.prepare import object_store
from s5mars.proposals.store import ObjectStore
from s5mars.settings.config import TrainConfig, first_pool_step
from s5mars.training.streams import crop_settings
from s5mars.types import Batch, Crops, Sample


class Feed(lightning.LightningDataModule):
    """The data module of a run."""

    def __init__(
        self,
        config: TrainConfig,
        labelled: Sequence[Sample],
        pool: Sequence[Sample] | None,
        total_steps: int,
        coding: MaskCoding,
        *,
        areas: NDArray[np.float64] | None,
        with_objects: bool,
    ) -> None:
        super().__init__()
        self.prepare_data_per_node = False
        self.config = config
        self.labelled = labelled
        self.pool = pool
        self.total_steps = total_steps
        self.coding = coding
        self.areas = areas
        self.with_objects = with_objects
        self.objects: ObjectStore | None = None
        self.coverage: Coverage | None = None

    def prepare_data(self) -> None:
        """Make missing object proposals in the first process; the others wait."""
        self._open_objects()

    def setup(self, stage: str) -> None:
        """Open the object proposals in the other processes."""
        if self.objects is None:
            self._open_objects()

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches from the current step on."""
        if self.trainer is None:
            raise RuntimeError("the feed is not attached to a trainer")
        settings = LoaderSettings(
            seed=self.config.seed,
            batch=self.config.batch,
            crop=crop_settings(self.config),
            coding=self.coding,
            objects=self.objects,
            balance=self._balance(),
            object_filter=ObjectFilter(),
            pool_from=first_pool_step(self.config, self.total_steps),
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )
        batches = TrainingBatches(
            self.labelled, self.pool, steps=self.total_steps, settings=settings
        )
        return training_loader(
            batches,
            start=self.trainer.global_step,
            workers=loader_workers(self.config.workers, sharing=self.trainer.num_devices),
            sharing=self.trainer.num_devices,
        )

    def _balance(self) -> Balance | None:
        share = self.config.balanced_crops
        return Balance.of(self.areas, share=share) if share and self.areas is not None else None

    def _open_objects(self) -> None:
        if self.with_objects:
            self.objects, self.coverage = object_store(
                self.config.objects, self.labelled, cache=self.config.out / "objects"
            )

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move a batch; Lightning cannot move frozen dataclasses."""
        pool = None if batch.pool is None else _crops_to(batch.pool, device)
        return Batch(labelled=_crops_to(batch.labelled, device), pool=pool)


def loader_workers(asked: int, sharing: int = 1) -> int:
    """Number of loader processes.

    Args:
        asked: the setting; -1: one fewer than the cores of a process, at most 4.
        sharing: number of training processes that share the cores.
    """
    if asked >= 0:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(0, min(4, (cores or 1) // sharing - 1))


def _crops_to(crops: Crops, device: torch.device) -> Crops:
    moved = {
        field.name: value.to(device, non_blocking=True)
        for field in fields(crops)
        if (value := getattr(crops, field.name)) is not None
    }
    return replace(crops, **moved)
