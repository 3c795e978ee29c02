"""How much a score depends on which images happen to be in the split."""

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
LEVEL = 0.95

Interval = tuple[float, float]
"""(low, high) in [0, 1]; NaN where no draw has a score."""


@dataclass(frozen=True)
class Intervals:
    """Percentile intervals; the score of the whole split need not lie in the middle."""

    mIoU: Interval  # noqa: N815 - the field's name for it
    mAcc: Interval  # noqa: N815 - the field's name for it
    pixel_accuracy: Interval
    iou: tuple[Interval, ...]  # by class


def bootstrap(
    images: Sequence[Confusion], *, draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> Intervals:
    """Percentile bootstrap (Efron 1979) over images.

    As many images as there are, drawn with replacement; their matrices are summed and scored, as
    those of the split are. A class that is in no image of a draw is left out of that draw's means.
    The interval is about the choice of images alone, not about another seed of the training.

    Args:
        images: one matrix an image.
        draws: how often to draw.
        seed: equal seeds give equal intervals.
        level: share of the draws that the interval holds, in (0, 1).

    Raises:
        ValueError: if there is no image, or ``draws`` or ``level`` is out of range.
    """
    if not images:
        raise ValueError("no image to draw from")
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"{draws} draws at level {level}: need at least 1, and a level in (0, 1)")
    matrices = np.stack([image.matrix for image in images])
    number, classes, _ = matrices.shape
    # How often each image is in a draw. All draws are then one product of matrices, exact in
    # float64 as long as a count stays below 2**53.
    times = generator(seed, "bootstrap").multinomial(number, np.full(number, 1 / number), draws)
    sums = (times.astype(np.float64) @ matrices.reshape(number, -1).astype(np.float64)).reshape(
        draws, classes, classes
    )
    drawn = sums.astype(np.int64)
    by_class = iou(drawn)
    return Intervals(
        mIoU=_interval(mean_over_present(by_class), level),
        mAcc=_interval(mean_over_present(accuracy(drawn)), level),
        pixel_accuracy=_interval(pixel_accuracy(drawn), level),
        iou=tuple(_interval(scores, level) for scores in by_class.T),
    )


def _interval(scores: NDArray[np.float64], level: float) -> Interval:
    known = scores[~np.isnan(scores)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
