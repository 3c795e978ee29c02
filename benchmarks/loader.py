"""Measure whether the loader is fast enough, and whether batches depend on the workers.

    python benchmarks/loader.py [--workers 2] [--rate 60] [--seconds 30] [--data FOLDER]

The script generates scenes of 1200×1200 pixels with masks and object proposals (or reads the images
of a data set, without objects) and loads crops of 512² in batches of 8 labelled and 8 pool images.
It measures:

- capacity: images per second of processor time, in this process. Multiplied by the number of cores,
  this is the capacity of the idle machine;
- most: images per second from the workers, for a consumer that never waits;
- kept fed: the share of the time that a consumer of ``--rate`` images per second, such as a GPU,
  waits for batches. It uses no processor time;
- same: whether the bytes and the order of the first batches are the same as without workers.

Other work on the machine lowers the second and the third value, but not the first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from machine import machine
from s5mars.classes import IGNORE, MaskCoding
from s5mars.data.crops import CropSettings
from s5mars.data.layouts import open_dataset
from s5mars.data.synthetic import render_scene
from s5mars.parallel.cores import usable_cores
from s5mars.proposals.proposal import proposal_from_mask
from s5mars.proposals.store import ObjectStore, write_store
from s5mars.training.loader import LoaderSettings, TrainingBatches
from s5mars.training.loader_processes import training_loader
from s5mars.types import Batch, Sample

CODING = MaskCoding.identity(9, ignored=(IGNORE,))
"""Number of classes in the generated masks."""

MASKS = 40
"""Number of object proposals per image."""

SAME = 4
"""Number of batches that are compared byte by byte."""


def generated(folder: Path, images: int, side: int) -> tuple[list[Sample], ObjectStore]:
    """Generate scenes with masks, with a grid of ellipses as their objects."""
    samples, rows = [], []
    y, x = np.mgrid[:side, :side]
    for k in range(images):
        image, label = render_scene(side, seed=0, index=k)
        Image.fromarray(image).save(folder / f"{k}.jpg", quality=92)
        Image.fromarray(label).save(folder / f"{k}.png")
        samples.append(Sample(str(k), folder / f"{k}.jpg", folder / f"{k}.png"))
        proposals = []
        for number in range(MASKS):
            centre = side * np.array([0.15 + 0.1 * (number % 8), 0.2 + 0.15 * (number // 8)])
            mask = ((x - centre[0]) / 0.06) ** 2 + ((y - centre[1]) / 0.04) ** 2 < side**2
            proposals.append(
                proposal_from_mask(mask, predicted_iou=0.99, stability=0.99, proposer="sam")
            )
        rows.append((str(k), proposals))
    write_store(folder / "objects.parquet", rows, proposer="sam")
    return samples, ObjectStore(folder / "objects.parquet")


def batches_of(
    samples: list[Sample], objects: ObjectStore | None, coding: MaskCoding, *, crop: int, batch: int
) -> TrainingBatches:
    """An endless iterator over batches that reads the same images in both streams."""
    settings = LoaderSettings(
        seed=0, batch=batch, crop=CropSettings(size=crop), coding=coding, objects=objects
    )
    return TrainingBatches(samples, samples, steps=10**6, settings=settings)


def fingerprint(batch: Batch) -> str:
    """Digest of all bytes of a batch."""
    digest = hashlib.sha256()
    for stream in (batch.labelled, batch.pool):
        for field in fields(stream) if stream is not None else ():
            value = getattr(stream, field.name)
            if value is not None:
                digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def images_in(batch: Batch) -> int:
    """Number of images in both streams of a batch."""
    return len(batch.labelled.image) + (0 if batch.pool is None else len(batch.pool.image))


def capacity(batches: TrainingBatches, count: int) -> float:
    """Images per second of processor time on one core."""
    images = images_in(batches[0])
    begin = time.process_time()
    for step in range(count):
        batches[step]
    return count * images / (time.process_time() - begin)


def arrivals(
    batches: TrainingBatches, *, workers: int, seconds: float, rate: float | None
) -> tuple[float, float]:
    """Images per second, and the share of the time that the consumer waited for them."""
    loader = iter(training_loader(batches, start=0, workers=workers))
    for _ in range(2 + 2 * workers):  # the start of the processes is not measured
        batch = next(loader)
    images, waited = 0, 0.0
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        asked = time.perf_counter()
        batch = next(loader)
        waited += time.perf_counter() - asked
        images += images_in(batch)
        if rate:
            # A step takes the same time even if its batch arrived late.
            time.sleep(images_in(batch) / rate)
    elapsed = time.perf_counter() - begin
    del loader
    return images / elapsed, waited / elapsed


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--rate", type=float, default=60.0, help="Images per second of the consumer"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="Duration of each measurement")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--side", type=int, default=1200)
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--data", type=Path, help="Path to a data set that replaces the generated scenes"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/loader.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cores = usable_cores()
    with tempfile.TemporaryDirectory() as name:
        if options.data:
            dataset = open_dataset(options.data)
            samples = [sample for sample in dataset.splits["train"] if sample.mask is not None]
            objects, coding = None, dataset.coding
        else:
            samples, objects = generated(Path(name), options.images, options.side)
            coding = CODING
        batches = batches_of(samples, objects, coding, crop=options.crop, batch=options.batch)
        alone = capacity(batches, max(2, int(options.seconds / 3)))
        most, _ = arrivals(batches, workers=options.workers, seconds=options.seconds, rate=None)
        fed, waited = arrivals(
            batches, workers=options.workers, seconds=options.seconds, rate=options.rate
        )
        loader = iter(training_loader(batches, start=0, workers=options.workers))
        same = all(fingerprint(next(loader)) == fingerprint(batches[step]) for step in range(SAME))
        del loader
    result = {
        "images_a_second_of_one_core": round(alone, 1),
        "capacity_of_the_machine": round(alone * (cores or 1), 1),
        "most_images_a_second": round(most, 1),
        "images_a_second_of_the_consumer": round(fed, 1),
        "share_of_its_time_it_waited": round(waited, 3),
        "same_bytes_and_order_as_without_workers": same,
        "sizes": {
            "workers": options.workers, "rate": options.rate, "batch": f"2 x {options.batch}",
            "crop": options.crop, "images": str(options.data or f"{options.side}^2 scenes"),
        },
        "machine": {**machine(), "cores": cores},
    }  # fmt: skip
    for key, value in result.items():
        print(f"{key:<40} {value}")
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
