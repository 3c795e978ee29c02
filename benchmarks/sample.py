"""Measure the time of one training sample relative to decoding, and to work at full size.

    python benchmarks/sample.py [--rounds 40] [--out benchmarks/sample.json]

The script generates an image of 1200×1200 pixels with a mask and object proposals. The following
are timed in turn on one thread, and compared as ratios because machines are shared:

- decode: read the JPEG into memory;
- lean: the loader of this project, which decodes, draws the crop, resamples only the crop of image
  and mask, and decodes and smooths one object mask within the crop;
- whole: resize image and mask to the drawn scale, decode and smooth every stored mask at full size,
  and crop at the end, as the published loaders do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from machine import machine
from s5mars.classes import IGNORE, MaskCoding
from s5mars.data.crops import CropSettings, draw_crop
from s5mars.data.read import open_image
from s5mars.data.synthetic import render_scene
from s5mars.proposals.proposal import proposal_from_mask
from s5mars.proposals.store import ObjectStore, write_store
from s5mars.randomness import generator
from s5mars.training.loader import LoaderSettings, load_crop
from s5mars.types import Sample

SIDE, CROP, MASKS = 1200, 512, 60


def prepare(folder: Path) -> tuple[Sample, ObjectStore]:
    """Write one image, its mask and its object proposals."""
    image, label = render_scene(SIDE, seed=0, index=9)
    Image.fromarray(image).save(folder / "a.jpg", quality=92)
    Image.fromarray(label).save(folder / "a.png")
    random = generator(0, "benchmark")
    rows, columns = np.mgrid[:SIDE, :SIDE]
    proposals = []
    for _ in range(MASKS):
        x, y = random.uniform(100, SIDE - 100, 2)
        radius = random.uniform(25, 200)
        mask = (columns - x) ** 2 + (rows - y) ** 2 < radius**2
        proposals.append(
            proposal_from_mask(mask, predicted_iou=0.99, stability=0.99, proposer="sam")
        )
    write_store(folder / "objects.parquet", [("a", proposals)], proposer="sam")
    return Sample("a", folder / "a.jpg", folder / "a.png"), ObjectStore(folder / "objects.parquet")


def whole(sample: Sample, store: ObjectStore, settings: LoaderSettings, step: int) -> None:
    """Compute the same sample at full size and crop it at the end."""
    rng = generator(0, "crop", step=step)
    image = open_image(sample.image)
    crop = draw_crop(SIDE, SIDE, settings=settings.crop, rng=rng)
    left, top, right, _ = crop.window
    factor = crop.size / (right - left)
    size = (round(SIDE * factor), round(SIDE * factor))
    corner = (round(left * factor), round(top * factor))
    box = (*corner, corner[0] + crop.size, corner[1] + crop.size)
    image.resize(size, Image.Resampling.BILINEAR).crop(box)
    assert sample.mask is not None
    Image.open(sample.mask).resize(size, Image.Resampling.NEAREST).crop(box)
    for proposal in store.proposals("a"):
        mask = Image.fromarray(proposal.mask.astype(np.uint8) * 255)
        mask.filter(ImageFilter.GaussianBlur(5)).resize(size, Image.Resampling.NEAREST).crop(box)


def main() -> None:
    """Print one table and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/sample.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        sample, store = prepare(Path(name))
        settings = LoaderSettings(
            seed=0,
            batch=1,
            crop=CropSettings(size=CROP),
            coding=MaskCoding.identity(9, ignored=(IGNORE,)),
            objects=store,
        )

        def lean(step: int) -> None:
            rng = generator(0, "crop", step=step)
            load_crop(sample, rng=rng, settings=settings, objects=store)

        candidates: dict[str, Callable[[int], object]] = {
            "decode": lambda _: open_image(sample.image),
            "lean": lean,
            "whole": lambda step: whole(sample, store, settings, step),
        }
        seconds: dict[str, list[float]] = {key: [] for key in candidates}
        for step in range(options.rounds + 2):
            for key, run in candidates.items():
                if key == "whole" and step % 8:
                    continue  # slow, and its ratio is large enough to be measured with few rounds
                start = time.process_time()
                run(step)
                if step >= 2:
                    seconds[key].append(time.process_time() - start)
    median = {key: statistics.median(values) for key, values in seconds.items()}
    result = {
        "milliseconds_of_one_core": {key: round(1e3 * value, 2) for key, value in median.items()},
        "lean_over_decode": round(median["lean"] / median["decode"], 2),
        "whole_over_lean": round(median["whole"] / median["lean"], 1),
        "image": f"{SIDE}x{SIDE} JPEG", "crop": CROP, "masks": MASKS, "rounds": options.rounds,
        "machine": machine(),
    }  # fmt: skip
    for key, value in result.items():
        print(f"{key:<26} {value}")
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
