"""Derive the sparse label of an annotator, in whole regions, from the true class map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from s5mars.classes import IGNORE
from s5mars.data.synthetic.noise import Wave
from s5mars.data.synthetic.terrain import HOLE, RIDGE, ROCK, ROVER, SKY, SOIL, TRACE

_OBJECTS = (ROCK, ROVER, TRACE, HOLE)  # drawn first and exactly, however small


def annotate(rng: np.random.Generator, classes: NDArray[np.uint8], target: float) -> np.ndarray:
    """Keep about ``target`` of the pixels, in whole regions and away from every boundary.

    ``classes`` is (S, S) uint8, IGNORE where even the renderer is in doubt. Returns the same with
    more IGNORE; two different classes are never closer than two pixels.
    """
    size = classes.shape[0]
    narrow, wide = 3, 2 * max(1, round(0.008 * size)) + 1
    interior = _uniform(classes, wide)
    exact = np.isin(classes, _OBJECTS) & _uniform(classes, narrow)
    kept = np.where((interior | exact) & (classes != IGNORE), classes, IGNORE).astype(np.uint8)

    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    attention = Wave.draw(rng).at(x, y, 0.9) + 0.6 * Wave.draw(rng).at(x, y, 0.45)
    class_bonus = rng.uniform(0, 1, 9)
    score = np.full((size, size), -np.inf, np.float32)
    for label in np.unique(kept[kept != IGNORE]):
        regions, count = ndimage.label(kept == label)
        pixels = np.bincount(regions.ravel(), minlength=count + 1)
        region_bonus = rng.uniform(0, 1, 512)[np.arange(count + 1) % 512]
        if label in _OBJECTS:
            worth = np.where(
                pixels >= max(4, 4e-5 * size * size), 1.6 + 1.2 * region_bonus, -np.inf
            )
        else:
            worth = np.where(pixels >= 2e-3 * size * size, 1.1 * region_bonus, -np.inf)
            worth += 0.7 * class_bonus[label] + (0.35 if label in (SKY, RIDGE) else 0.0)
            worth -= 0.1 if label == SOIL else 0.0
        worth[0] = -np.inf
        score = np.maximum(score, worth.astype(np.float32)[regions])
    # Sky and ridges are easy to draw whole; on the ground an annotator stops somewhere.
    score += np.where(kept <= RIDGE, 0.0, 0.22).astype(np.float32) * attention
    possible = np.isfinite(score)
    wanted = int(target * size * size)
    if wanted < int(possible.sum()):
        floor = np.partition(score[possible], -wanted)[-wanted]
        possible &= score >= floor
    return np.where(possible, kept, IGNORE).astype(np.uint8)


def _uniform(classes: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """Where all pixels of the window around a pixel have the same class."""
    lowest = ndimage.minimum_filter(classes, width, mode="nearest")
    highest = ndimage.maximum_filter(classes, width, mode="nearest")
    return np.asarray(lowest == highest)
