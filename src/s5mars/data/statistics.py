"""Statistics of a data set: table II and figure 2 of the paper, for any folder.

Only counts are kept, so the memory does not depend on the number of images.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from s5mars.classes import Taxonomy
from s5mars.data.dataset import Dataset
from s5mars.data.layouts import open_dataset
from s5mars.data.read import open_image, open_pair, without_data
from s5mars.files import write_figure, write_text
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


def write_statistics(
    data: Path, *, out: Path, split: str | None = None, splits: Path | None = None
) -> Statistics:
    """Print table II and the numbers of figure 2, and write them as JSON and PNG.

    The default is train, val and test together; ``splits`` is the folder of the split lists.

    Raises:
        UserError, MissingFileError: as ``open_dataset`` and the readers.
    """
    dataset = open_dataset(data, splits=splits)
    found = dataset_statistics(dataset, split=split)
    out.mkdir(parents=True, exist_ok=True)
    shares = {"labelled_share": found.labelled_share, "area_shares": found.area_shares}
    text = json.dumps(_without_nan({**asdict(found), **shares}), indent=2)
    write_text(out / "statistics.json", text + "\n")
    write_figure(out / "colours.png", colour_figure(found))
    write_figure(out / "labels.png", label_figure(found, dataset.taxonomy))
    print(as_table(found))
    print(f"written to {out}: statistics.json, colours.png, labels.png")
    return found


def as_table(found: Statistics) -> str:
    """Format table II, with the rows of the paper, and the numbers of figure 2 as text."""
    rows = found.table_ii
    width = max(map(len, rows))
    lines = [
        f"{found.images} images of {', '.join(found.splits)}",
        "",
        f"{'(red, green, blue)':<{width}}   standard deviation    coefficient of variation",
    ]
    for name, (deviation, variation) in rows.items():
        texts = [
            "(" + ", ".join(f"{v:.3f}" for v in values) + ")" for values in (deviation, variation)
        ]
        lines.append(f"{name:<{width}}   {texts[0]}   {texts[1]}")
    lines += [
        "",
        f"labelled: {100 * found.labelled_share:.1f} % of all pixels of "
        f"{sum(found.classes_per_image)} images with a mask; "
        f"{found.labelled_images} of them have labelled pixels",
        "",
    ]
    width = max(map(len, (*found.class_pixels, "class")))
    lines.append(f"{'class':<{width}}  share of labelled area    images")
    for name, share in found.area_shares.items():
        lines.append(f"{name:<{width}}  {100 * share:>20.2f} %  {found.images_with_class[name]:>8}")
    lines += ["", "classes in an image    images"]
    lines += [f"{k:>19}  {n:>8}" for k, n in enumerate(found.classes_per_image) if n]
    return "\n".join(lines)


def colour_figure(found: Statistics) -> Figure:
    """Plot table II, with the rows of the paper, and the histogram of each channel."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    rows = found.table_ii
    places = np.arange(3)
    titles = ("Standard deviation", "Coefficient of variation")
    for which, axes in enumerate((left, middle)):
        for offset, (name, values) in enumerate(rows.items()):
            colour = ("#c1440e", "#e0a080", "#9aa5b1")[offset]
            bars = axes.bar(
                places + 0.27 * (offset - 1), values[which], 0.25, label=name, color=colour
            )
            axes.bar_label(bars, fmt="%.3f", fontsize=6, rotation=90, padding=2)
        axes.set_xticks(places, CHANNELS)
        axes.set_title(titles[which])
        axes.margins(y=0.2)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize=8)
    levels = np.arange(256) / 255
    for channel, counts, colour in zip(
        CHANNELS, found.histogram, ("#d62728", "#2ca02c", "#1f77b4"), strict=True
    ):
        share = np.array(counts) / max(1, sum(counts))
        right.plot(levels, share, color=colour, label=channel, linewidth=1.2)
    right.set_title("Share of pixels by value")
    right.set_xlabel("value in [0, 1]")
    right.legend(fontsize=7)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def label_figure(found: Statistics, taxonomy: Taxonomy) -> Figure:
    """Plot figure 2: classes per image, and the share of each class in the labelled area."""
    figure = Figure(figsize=(11, 0.28 * len(taxonomy) + 2.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    counts = found.classes_per_image
    bars = left.bar(range(len(counts)), counts, color="#c1440e")
    left.bar_label(bars, [str(n) if n else "" for n in counts], fontsize=8, padding=2)
    left.set_xticks(range(len(counts)))
    left.set_xlabel("classes in an image")
    left.set_ylabel("images")
    left.set_title(f"{sum(counts)} images with a mask")
    colours = [tuple(value / 255 for value in each.colour) for each in taxonomy.classes]
    shares = [0.0 if np.isnan(share) else 100 * share for share in found.area_shares.values()]
    across = right.barh(taxonomy.names, shares, color=colours, edgecolor="#444444", linewidth=0.5)
    right.bar_label(across, [f"{share:.2f} %" for share in shares], fontsize=8, padding=3)
    right.invert_yaxis()
    right.margins(x=0.18)
    right.set_xlabel("% of the labelled area")
    right.set_title(f"{100 * found.labelled_share:.1f} % of all pixels are labelled")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


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


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and np.isnan(value) else value
