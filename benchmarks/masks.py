"""Measure the time to open a large store and to draw one random qualified mask.

    python benchmarks/masks.py [--images 6000] [--masks 100] [--out benchmarks/masks.json]

The script writes a store of this size to a temporary folder, once as one file and once as shards of
64 images. For each it measures the first draw after opening, which reads the index, and later draws
from random images, with and without cutting the mask out for a crop of 512 pixels. All times are
processor time of one core, because machines are shared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from machine import machine
from s5mars.proposals.build import SHARD_IMAGES
from s5mars.proposals.draw import ObjectFilter, decode_window, draw_object
from s5mars.proposals.proposal import Proposal, proposal_from_mask
from s5mars.proposals.store import ObjectStore, write_store
from s5mars.randomness import generator

SIDE, CROP, DIFFERENT, WINDOW = 1200, 512, 60, (200.0, 200.0, 1000.0, 1000.0)


def objects() -> list[Proposal]:
    """Blobs with ragged outlines and as many runs as SAM's masks; all images share them."""
    rng = generator(0, "benchmark")
    rows, columns = np.mgrid[:SIDE, :SIDE]
    found = []
    for _ in range(DIFFERENT):
        x, y = rng.uniform(100, SIDE - 100, 2)
        radius = rng.uniform(20, 220)
        angle = np.arctan2(rows - y, columns - x)
        ragged = radius * (1 + 0.1 * np.sin(rng.integers(5, 40) * angle))
        mask = (columns - x) ** 2 + (rows - y) ** 2 < ragged**2
        confidence = float(rng.uniform(0.94, 1.0))
        found.append(
            proposal_from_mask(mask, predicted_iou=confidence, stability=0.97, proposer="sam")
        )
    return found


def rows(images: range, masks: int, found: list[Proposal]) -> Iterator[tuple[str, list[Proposal]]]:
    """Rows of the store: a random selection of the blobs for each image, best first."""
    for image in images:
        chosen = generator(0, "benchmark", step=image).integers(len(found), size=masks)
        some = [found[k] for k in chosen]
        yield f"sol_{image:05d}", sorted(some, key=lambda p: -p.predicted_iou)


def timed(path: Path, draws: int) -> dict[str, float]:
    """Milliseconds of processor time: opening and first draw, median, 99th percentile."""
    start = time.process_time()
    store = ObjectStore(path)
    settings = ObjectFilter()
    draw_object(store, store.names[0], generator(0, "draw"), filter=settings)
    first = time.process_time() - start
    names = store.names
    plain, cut = [], []
    for k in range(draws):
        rng = generator(0, "draw", step=k)
        name = names[int(rng.integers(len(names)))]
        start = time.process_time()
        proposal = draw_object(store, name, rng, filter=settings)
        between = time.process_time()
        if proposal is not None:
            decode_window(proposal, box=WINDOW, size=(CROP, CROP), blur=settings.blur)
        end = time.process_time()
        plain.append(1e3 * (between - start))
        cut.append(1e3 * (end - start))
    return {
        "open_and_first": round(1e3 * first, 1),
        "draw_median": round(statistics.median(plain), 2),
        "draw_99th": round(float(np.percentile(plain, 99)), 2),
        "draw_and_cut_median": round(statistics.median(cut), 2),
    }


def main() -> None:
    """Print one table and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/masks.json"))
    options = parser.parse_args()
    found = objects()
    with tempfile.TemporaryDirectory() as name:
        file, folder = Path(name) / "one.parquet", Path(name) / "shards"
        start = time.process_time()
        write_store(file, rows(range(options.images), options.masks, found), proposer="sam")
        for first in range(0, options.images, SHARD_IMAGES):
            images = range(first, min(first + SHARD_IMAGES, options.images))
            write_store(
                folder / f"{first:06d}.parquet", rows(images, options.masks, found), proposer="sam"
            )
        written = time.process_time() - start
        result = {
            "milliseconds_of_one_core": {
                "one file": timed(file, options.draws),
                f"shards of {SHARD_IMAGES}": timed(folder, options.draws),
            },
            "images": options.images, "masks_an_image": options.masks,
            "megabytes": round(file.stat().st_size / 1e6, 1),
            "seconds_to_write_both": round(written, 1),
            "machine": machine(),
        }  # fmt: skip
    for key, value in result.items():
        print(f"{key:<25} {value}")
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
