"""A simulated annotator on real masks, to measure the benefit of the label page's queue.

``python benchmarks/annotator.py DATA --out results/annotator``

The annotator opens images of the train split, and fills superpixels (level "medium" of the page)
with the most frequent class of their pixels in the true mask. Three strategies are compared:

- queue: the image that the page's queue ranks first, and its superpixels with the least confident
  suggestions, large ones before small ones;
- random: a random image, and random superpixels;
- whole: a random image, and all of its superpixels.

After every image the page's head is fitted to all paint. At several points its suggestions, as the
page shows them, are scored on the whole val split. Time is not measured but assumed: ``--open``
seconds per image and ``--stroke`` seconds per superpixel. Features, superpixels and the results of
each strategy and seed are stored in ``--out``: the same command continues after an interruption.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from s5mars.classes import IGNORE
from s5mars.data.dataset import Dataset
from s5mars.data.layouts import open_dataset
from s5mars.data.read import read_image, read_label
from s5mars.evaluation.confusion import Confusion
from s5mars.files import file_digest
from s5mars.labels.loop.assistant import overview
from s5mars.labels.loop.features import Pyramid, PyramidCache, open_start_model
from s5mars.labels.loop.head import Head, PaintedPixels, fit_head, painted_pixels, resized
from s5mars.labels.loop.queue import Candidate, rank
from s5mars.labels.loop.superpixels import SuperpixelCache, enlarged, smoothed, superpixels
from s5mars.products.names import parse_name
from s5mars.randomness import generator
from s5mars.text.numbers import plural
from s5mars.types import Sample

WAYS = ("queue", "random", "whole")
LEVEL = 1
SHARE = 0.5
"""A superpixel is painted if at least this share of it has one class in the true mask."""

MINUTES = (1, 2, 4, 8, 16, 30)
SUPERPIXELS = (20, 50, 100, 200, 400, 600)


@dataclass(frozen=True)
class Scene:
    """An image with everything that is computed once for it."""

    sample: Sample
    sol: int | None
    label: NDArray[np.uint8]
    pyramid: Pyramid
    regions: NDArray[np.uint16]
    summary: NDArray[np.float32]
    places: torch.Tensor


class Annotator:
    """One strategy with one seed."""

    def __init__(self, scenes: Sequence[Scene], data: Dataset, *, way: str, seed: int) -> None:
        self.random = generator(seed, f"annotator {way}")
        self.scenes = [scenes[k] for k in self.random.permutation(len(scenes))]
        self.classes = data.taxonomy.names
        self.way = way
        self.head: Head | None = None
        self.painted: list[Scene] = []
        self.pixels: list[PaintedPixels] = []
        self.counts = np.zeros(len(self.classes), np.int64)
        self.strokes = 0

    def visit(self, most: int) -> None:
        """Open the next image, paint superpixels in it, and fit the head."""
        scene = self._next()
        self.scenes = [other for other in self.scenes if other is not scene]
        level = enlarged(scene.regions[LEVEL], scene.label.shape)
        mask = np.full_like(scene.label, IGNORE)
        for region, label in self._chosen(scene, level, most):
            mask[level == region] = label
            self.strokes += 1
        self.painted.append(scene)
        self.pixels.append(painted_pixels(scene.pyramid, mask, seed=len(self.painted)))
        counted = np.bincount(mask.ravel(), minlength=256)[: len(self.classes)]
        self.counts += counted
        self.head = fit_head(self.pixels, len(self.classes), start=self.head)

    def _next(self) -> Scene:
        if self.way != "queue" or self.head is None:
            return self.scenes[0]
        candidates = []
        for scene in self.scenes:
            probabilities = self.head.logits(scene.places).softmax(1).numpy()
            candidates.append(Candidate(scene.sample.name, scene.sol, scene.summary, probabilities))
        sols = [scene.sol for scene in self.painted if scene.sol is not None]
        first = rank(
            candidates,
            painted_sols={sol: sols.count(sol) for sol in sols},
            painted_summaries=[scene.summary for scene in self.painted],
            painted_pixels=self.counts,
            classes=self.classes,
        )[0]
        return next(scene for scene in self.scenes if scene.sample.name == first.name)

    def _chosen(self, scene: Scene, level: NDArray[np.uint16], most: int) -> list[tuple[int, int]]:
        """Superpixels and their classes."""
        count = int(level.max()) + 1
        joint = np.bincount(level.ravel() * 256 + scene.label.ravel().astype(np.int64),
                            minlength=count * 256).reshape(count, 256)  # fmt: skip
        area = joint.sum(1)
        known = joint[:, : len(self.classes)]
        clear = known.max(1) >= SHARE * np.maximum(area, 1)
        clear[0] = False  # no data
        order = np.flatnonzero(clear & (area > 0))
        if self.way == "queue" and self.head is not None:
            unsure = 1 - _shown(self.head, scene).max(0).values.numpy()
            wanted = np.bincount(level.ravel(), unsure.ravel(), count) / np.sqrt(area.clip(1))
            order = order[np.argsort(-wanted[order], kind="stable")]
        else:
            order = self.random.permutation(order)
        if self.way != "whole":
            order = order[:most]
        return [(int(region), int(known[region].argmax())) for region in order]


def _shown(head: Head, scene: Scene) -> torch.Tensor:
    """(K, H, W) probabilities as the page shows them."""
    small = head.map(scene.pyramid, (scene.regions.shape[1], scene.regions.shape[2]))
    smooth = torch.from_numpy(smoothed(small.numpy(), scene.regions))
    return resized(smooth, (scene.label.shape[0], scene.label.shape[1]))


def score(head: Head | None, scenes: Sequence[Scene], classes: int) -> float:
    """mIoU in percent of the suggestions on whole images; 0 without a head."""
    if head is None:
        return 0.0
    confusion = Confusion(classes)
    for scene in scenes:
        confusion.update(scene.label, _shown(head, scene).argmax(0).numpy())
    return 100 * confusion.mIoU


def described(samples: Sequence[Sample], data: Dataset, out: Path) -> list[Scene]:
    """Load features and superpixels from ``out``, or compute them."""
    model = open_start_model(None, device="auto")
    pyramids = PyramidCache(out / "cache/features", model)
    segments = SuperpixelCache(out / "cache/superpixels")
    scenes = []
    for number, sample in enumerate(samples):
        if number % 50 == 0:
            print(f"features and superpixels: {number} of {len(samples)}", flush=True)
        digest = file_digest(sample.image)
        pyramid, regions = pyramids.get(digest), segments.get(digest)
        if pyramid is None or regions is None:
            image = read_image(sample.image)
            if pyramid is None:
                pyramid = model.pyramid(image)
                pyramids.put(digest, pyramid)
            if regions is None:
                regions = superpixels(image)
                segments.put(digest, regions)
        named = parse_name(sample.image.name)
        sol = named.info.sol if named else None
        label = read_label(sample, data.coding)
        if (label != IGNORE).any():
            scenes.append(Scene(sample, sol, label, pyramid, regions, *overview(pyramid)))
    return scenes


def run(options: argparse.Namespace) -> list[dict[str, object]]:
    """Compute the missing results, and return all results."""
    data = open_dataset(options.data)
    train = data.split("train")
    if options.images is not None and options.images < len(train):
        drawn = generator(0, "annotator images").choice(len(train), options.images, replace=False)
        train = tuple(train[k] for k in sorted(drawn))
    scenes = described(train, data, options.out)
    scored = described(data.split("val"), data, options.out)
    print(f"{len(scenes)} images to paint, {len(scored)} for scoring", flush=True)
    path = options.out / "results.jsonl"
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    settings = {
        "data": options.data.resolve().name, "images": len(scenes), "scored": len(scored),
        "open": options.open, "stroke": options.stroke, "per_image": options.per_image,
    }  # fmt: skip
    for seed in range(options.seeds):
        for way in WAYS:
            key = {**settings, "way": way, "seed": seed}
            if any(key.items() <= result.items() for result in results):
                continue
            result = {**key, "points": _one(scenes, scored, data, way, seed, options)}
            with path.open("a") as file:
                file.write(json.dumps(result) + "\n")
            results.append(result)
            last = result["points"][-1]
            print(f"seed {seed}, {way}: {last}", flush=True)
    return [result for result in results if settings.items() <= result.items()]


def _one(
    scenes: Sequence[Scene],
    scored: Sequence[Scene],
    data: Dataset,
    way: str,
    seed: int,
    options: argparse.Namespace,
) -> list[dict[str, float]]:
    annotator = Annotator(scenes, data, way=way, seed=seed)
    points: list[dict[str, float]] = []
    due_minutes, due_strokes = list(MINUTES), list(SUPERPIXELS)
    while annotator.scenes:
        annotator.visit(options.per_image)
        images, strokes = len(annotator.painted), annotator.strokes
        minutes = (images * options.open + strokes * options.stroke) / 60
        due = [m for m in due_minutes if m <= minutes], [s for s in due_strokes if s <= strokes]
        over = minutes >= MINUTES[-1] or not annotator.scenes
        if any(due) or over or way == "whole":
            miou = score(annotator.head, scored, len(data.taxonomy))
            points.append({"images": images, "superpixels": strokes,
                           "minutes": round(minutes, 2), "miou": round(miou, 2)})  # fmt: skip
            due_minutes = [m for m in due_minutes if m not in due[0]]
            due_strokes = [s for s in due_strokes if s not in due[1]]
        if over:
            break
    return points


def table(results: Sequence[dict[str, object]], of: str, places: Sequence[int]) -> str:
    """Mean and standard deviation over seeds of the last score at each point.

    A strategy that paints few superpixels per image has a score within one image after each point.
    """
    slack = {"minutes": 0.5, "superpixels": 10}[of]
    lines = [f"| {of} | " + " | ".join(map(str, places)) + " |", "|---" * (len(places) + 1) + "|"]
    for way in WAYS:
        cells = []
        runs = [result["points"] for result in results if result["way"] == way]
        for place in places:
            found = []
            for points in runs:
                assert isinstance(points, list)
                found += [p["miou"] for p in points if p[of] <= place + slack][-1:]
            spread = f" ± {np.std(found, ddof=1):.1f}" if len(found) > 1 else ""
            # Means over different seeds would not be comparable.
            complete = runs and len(found) == len(runs)
            cells.append(f"{np.mean(found):.1f}{spread}" if complete else "–")
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, help="Number of train images (default: all)")
    parser.add_argument(
        "--per-image", type=int, default=10, help="Number of superpixels per image (default: 10)"
    )
    parser.add_argument("--open", type=float, default=8.0, help="Seconds per image (default: 8)")
    parser.add_argument(
        "--stroke", type=float, default=2.0, help="Seconds per superpixel (default: 2)"
    )
    options = parser.parse_args(arguments)
    results = run(options)
    seeds = len({result["seed"] for result in results})
    over = f"mean ± standard deviation over {plural(seeds, 'seed')}"
    print(f"\nmIoU in percent on the val split, {over}\n")
    print(table(results, "minutes", MINUTES))
    print()
    print(table(results, "superpixels", SUPERPIXELS))


if __name__ == "__main__":
    main()
