"""Counts of colours and labels: table II and figure 2 of the paper, for any data set.

Only counts are kept, so the memory does not depend on the number of images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s5mars.data.dataset import Dataset
from s5mars.data.read import open_image, open_pair, without_data
from s5mars.parallel.ahead import map_images
from s5mars.types import Sample

CHANNELS = ("red", "green", "blue")

PAPER = {
    "S5Mars (paper)": ((0.134, 0.121, 0.099), (0.214, 0.233, 0.273)),
    "ImageNet (paper)": ((0.229, 0.224, 0.225), (0.472, 0.491, 0.554)),
}
"""Table II: standard deviation and coefficient of variation of red, green, blue."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Statistics:
    """Counts over the images of some splits.

    Colour values are in [0, 1] (8-bit value / 255). The mean and the (population) standard
    deviation are over all pixels of all images together, not averaged over images; the
    coefficient of variation is standard deviation / mean. This definition reproduces table II from
    the authors' published means and variances. Pixels without data (``data.read.without_data``) are
    excluded from the colours only.
    """

    data: str
    splits: tuple[str, ...]
    images: int
    labelled_images: int  # with at least one labelled pixel
    pixels: int  # of images with a mask, including those without data
    no_data_pixels: int
    labelled_pixels: int
    mean: tuple[float, ...]
    standard_deviation: tuple[float, ...]
    coefficient_of_variation: tuple[float, ...]
    class_pixels: dict[str, int]
    images_with_class: dict[str, int]
    classes_per_image: tuple[int, ...]  # position k: number of images with exactly k classes
    histogram: tuple[tuple[int, ...], ...]  # red, green, blue; number of pixels per 8-bit value

    @property
    def labelled_share(self) -> float:
        """Labelled pixels / all pixels of the images with a mask; NaN without pixels."""
        return self.labelled_pixels / self.pixels if self.pixels else float("nan")

    @property
    def area_shares(self) -> dict[str, float]:
        """Class → its share of the labelled pixels; NaN without labelled pixels."""
        total = self.labelled_pixels or float("nan")
        return {name: count / total for name, count in self.class_pixels.items()}

    @property
    def table_ii(self) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
        """Standard deviation and coefficient of variation, also of the paper's data sets."""
        own = (self.standard_deviation, self.coefficient_of_variation)
        return {Path(self.data).name or self.data: own, **PAPER}


@dataclass(frozen=True)
class _Counted:
    histogram: Counts  # (3, 256)
    no_data: int
    pixels: int
    areas: Counts | None  # (C,)


def dataset_statistics(dataset: Dataset, *, split: str | None = None) -> Statistics:
    """Count colours and labels over one split, or over train, val and test together.

    Raises:
        UserError: if the split does not exist, and as the readers.
    """
    usual = tuple(name for name in ("train", "val", "test") if dataset.splits.get(name))
    names = (split,) if split else usual
    # Images in several splits (the gold sets of AI4Mars overlap) count once.
    samples = {each.image: each for name in names for each in dataset.split(name)}
    classes = len(dataset.taxonomy)
    histogram = np.zeros((3, 256), np.int64)
    areas = np.zeros(classes, np.int64)
    present = np.zeros(classes, np.int64)
    per_image = np.zeros(classes + 1, np.int64)
    without = pixels = 0
    for counted in map_images(
        partial(_count, dataset=dataset), list(samples.values()), description="reading images"
    ):
        histogram += counted.histogram
        without += counted.no_data
        if counted.areas is not None:
            pixels += counted.pixels
            areas += counted.areas
            present += counted.areas > 0
            per_image[(counted.areas > 0).sum()] += 1
    mean, deviation = _moments(histogram)
    classes_of = dataset.taxonomy.names
    return Statistics(
        data=str(dataset.root),
        splits=names,
        images=len(samples),
        labelled_images=int(per_image[1:].sum()),
        pixels=pixels,
        no_data_pixels=without,
        labelled_pixels=int(areas.sum()),
        mean=tuple(mean.tolist()),
        standard_deviation=tuple(deviation.tolist()),
        coefficient_of_variation=tuple((deviation / np.where(mean > 0, mean, np.nan)).tolist()),
        class_pixels=dict(zip(classes_of, areas.tolist(), strict=True)),
        images_with_class=dict(zip(classes_of, present.tolist(), strict=True)),
        classes_per_image=tuple(per_image.tolist()),
        histogram=tuple(tuple(row) for row in histogram.tolist()),
    )


def _count(sample: Sample, dataset: Dataset) -> _Counted:
    areas = None
    if sample.mask is None:
        image = open_image(sample.image)
    else:
        image, label = open_pair(sample, dataset.coding)
        areas = np.array(label.histogram()[: len(dataset.taxonomy)], np.int64)
    pixels = np.asarray(image)
    empty = without_data(image)
    seen = pixels[~empty] if empty.any() else pixels.reshape(-1, 3)
    histogram = np.stack([np.bincount(seen[:, c], minlength=256) for c in range(3)])
    return _Counted(histogram, int(empty.sum()), empty.size, areas)


def _moments(histogram: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact mean and standard deviation, in [0, 1], from counts of the 256 values."""
    values = np.arange(256) / 255
    total = histogram.sum(1)
    mean = histogram @ values / np.maximum(total, 1)
    variance = (histogram * (values - mean[:, None]) ** 2).sum(1) / np.maximum(total, 1)
    return mean, np.sqrt(variance)
