"""Write the statistics of a data set: tables, JSON and figures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from s5mars.classes import Taxonomy
from s5mars.data.layouts import open_dataset
from s5mars.data.statistics import CHANNELS, Statistics, dataset_statistics
from s5mars.files import write_figure, write_json


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
    write_json(out / "statistics.json", _without_nan({**asdict(found), **shares}))
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


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and np.isnan(value) else value
