"""Orders images so that each prefix has nearly the label distribution of all images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.classes import IGNORE, MaskCoding
from s5mars.data.read import read_label
from s5mars.errors import DamagedFileError
from s5mars.parallel.ahead import map_images
from s5mars.randomness import generator
from s5mars.types import Sample

Areas = NDArray[np.int64]
Weights = Callable[[int, int], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""(width, height) of an image → (H, K) and (K, W), whose product is the weight of each pixel."""

_STRIP = 256
"""Rows whose weights are computed at once, because those of a panorama take a gigabyte."""


def label_areas(
    samples: Sequence[Sample],
    coding: MaskCoding,
    number_of_classes: int,
    *,
    weights: Weights | None = None,
    skip_bad: bool = False,
) -> tuple[NDArray[Any], dict[int, str]]:
    """Read every label and count its pixels by class.

    Args:
        number_of_classes: C.
        weights: Weight of a pixel by its place, such as ``crops.coverage``; 1 by default.
        skip_bad: Leave out damaged label files instead of raising an error.

    Returns:
        areas: (N, C) int64, number of pixels of each class in each label, without ignored pixels.
            With ``weights`` float64, the sum of their weights.
        bad: Position → reason, for damaged label files (their row is zero). Empty unless
            ``skip_bad``.

    Raises:
        UserError, MissingFileError: as ``read_label``; not for damaged files if ``skip_bad``.
    """

    def count(sample: Sample) -> NDArray[Any] | str:
        try:
            label = read_label(sample, coding)
        except DamagedFileError as error:
            if not skip_bad:
                raise
            return str(error)
        if weights is None:
            return np.bincount(label.ravel(), minlength=IGNORE + 1)[:number_of_classes]
        height, width = label.shape
        rows, columns = weights(width, height)
        total = np.zeros(IGNORE + 1)
        for top in range(0, height, _STRIP):
            strip = slice(top, top + _STRIP)
            weight = (rows[strip] @ columns).ravel()
            total += np.bincount(label[strip].ravel(), weight, minlength=IGNORE + 1)
        return total[:number_of_classes]

    kind = np.int64 if weights is None else np.float64
    areas = np.zeros((len(samples), number_of_classes), kind)
    bad: dict[int, str] = {}
    for position, result in enumerate(map_images(count, samples, description="reading labels")):
        if isinstance(result, str):
            bad[position] = result
        else:
            areas[position] = result
    return areas, bad


def stratified_order(areas: Areas, *, seed: int) -> NDArray[np.int64]:
    """Order images so that every prefix is stratified by label distribution.

    The order starts with a cover: from the rarest class (by images) to the most common one, each
    class that is not yet covered adds an image that shows it well. So every class is in the first C
    images. Then each next image is, greedily, the candidate that brings the collected shares
    closest, by least squares, to the share of collected images. The shares are: the area of each
    class, the number of images with each class, the number of images without labels. Each is
    relative to the total, so a rare class weighs as much as a common one (as in iterative
    stratification, Sechidis et al., ECML PKDD 2011; here one order gives nested subsets of every
    size).

    Args:
        areas: (N, C) int64, number of pixels of each class in each image.
        seed: Candidates are a random draw of at most 256 of the remaining images and at most a
            quarter of them, so that seeds give different, equally good orders.

    Returns:
        (N,) int64, a permutation of the images.
    """
    count = len(areas)
    random = generator(seed, "stratified order")
    # Ties must not depend on the order in which images are listed.
    left = random.permutation(count)
    shares = _shares(areas)
    collected = np.zeros(shares.shape[1])
    order: list[int] = []

    def take(position: int) -> None:
        nonlocal left, collected
        image = int(left[position])
        order.append(image)
        collected = collected + shares[image]
        left[position] = left[-1]
        left = left[:-1]

    def deviation(positions: NDArray[np.int64]) -> NDArray[np.float64]:
        progress = (len(order) + 1) / count
        after = shares[left[positions]] + collected
        return np.asarray(((after - progress) ** 2).sum(1))

    present = areas > 0
    for class_index in np.argsort(present.sum(0), kind="stable"):
        having = np.flatnonzero(present[left, class_index])
        if not present[order, class_index].any() and len(having):
            sizes = areas[left[having], class_index]
            # A few stray pixels do not represent the class.
            clear = having[10 * sizes >= sizes.mean()]
            take(int(clear[deviation(clear).argmin()]))
    while len(left):
        # At least 8, because fewer candidates would make a short list nearly random.
        draw = min(len(left), max(8, min(256, len(left) // 4)))
        candidates = random.choice(len(left), draw, replace=False)
        take(int(candidates[deviation(candidates).argmin()]))
    return np.array(order, np.int64)


def prefix_length(count: int, fraction: float) -> int:
    """Number of images in a fraction of ``count`` images: rounded, at least one."""
    return max(1, round(count * fraction))


def _shares(areas: Areas) -> NDArray[np.float64]:
    """(N, K) share of each image in each total; every column sums to 1."""
    present = areas > 0
    columns = np.concatenate([areas, present, ~present.any(1, keepdims=True)], axis=1)
    columns = columns.astype(np.float64)
    totals = columns.sum(0)
    return np.asarray(columns[:, totals > 0] / totals[totals > 0])
