"""Bootstrap intervals: how much a score depends on the choice of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s5mars.evaluation.confusion import (
    Confusion,
    accuracy,
    iou,
    mean_over_present,
    pixel_accuracy,
)
from s5mars.randomness import generator

DRAWS = 1000
SEED = 0
LEVEL = 0.95

FEWEST = 5
"""Below this number of images there is no interval. Of normal scores, a 95 % interval of this kind
covers the mean in 85 % of the cases with five images, and in 60 % with two."""

Interval = tuple[float, float]
"""(low, high) in [0, 1]; NaN if no draw has a score."""


@dataclass(frozen=True)
class Intervals:
    """Percentile intervals, which need not be centred on the score of the whole split."""

    mIoU: Interval  # noqa: N815 - the field's name for it
    mAcc: Interval  # noqa: N815 - the field's name for it
    pixel_accuracy: Interval
    iou: tuple[Interval, ...]  # by class


def bootstrap(images: Sequence[Confusion], *, draws: int = DRAWS, seed: int = SEED) -> Intervals:
    """Percentile bootstrap (Efron 1979) over images.

    Images without a labelled pixel change no score, and no interval: they are left out. Each draw
    takes as many of the other images as there are, with replacement; their matrices are summed and
    scored like those of the split. A class absent from a draw is left out of that draw's means. The
    interval covers the choice of images only, not the seed of the training. All ends are NaN if
    fewer than ``FEWEST`` images have a labelled pixel.

    The interval contains the fraction ``LEVEL`` of the draws.

    Raises:
        ValueError: if there is no image, or ``draws`` is below 1.
    """
    if not images:
        raise ValueError("images must not be empty")
    if draws < 1:
        raise ValueError(f"draws must be at least 1 (got {draws})")
    labelled = [image for image in images if image.support.any()]
    if len(labelled) < FEWEST:
        nothing = (float("nan"), float("nan"))
        return Intervals(nothing, nothing, nothing, (nothing,) * images[0].classes)
    matrices = np.stack([image.matrix for image in labelled])
    number, classes, _ = matrices.shape
    # Counts of each image in each draw: all draws are one matrix product, exact in float64 as
    # long as counts stay below 2**53.
    times = generator(seed, "bootstrap").multinomial(number, np.full(number, 1 / number), draws)
    sums = (times.astype(np.float64) @ matrices.reshape(number, -1).astype(np.float64)).reshape(
        draws, classes, classes
    )
    drawn = sums.astype(np.int64)
    by_class = iou(drawn)
    return Intervals(
        mIoU=_interval(mean_over_present(by_class)),
        mAcc=_interval(mean_over_present(accuracy(drawn))),
        pixel_accuracy=_interval(pixel_accuracy(drawn)),
        iou=tuple(_interval(scores) for scores in by_class.T),
    )


def _interval(scores: NDArray[np.float64]) -> Interval:
    known = scores[~np.isnan(scores)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
