"""Pictures of a comparison: predictions (10), worst cases (11)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from s5mars.classes import IGNORE, Taxonomy, hex_colour
from s5mars.comparison.grid import BASELINE
from s5mars.comparison.standings import Group, Standing, by_seed
from s5mars.evaluation.found import read_evaluation
from s5mars.evaluation.protocols import read_pair
from s5mars.files.run_folder import evaluation_path
from s5mars.predict.spacing import evenly_spaced
from s5mars.products.no_data import no_data
from s5mars.report.examples import open_data, open_network, scored
from s5mars.report.folder import read_run
from s5mars.report.pictures import class_picture, shrunk
from s5mars.report.words import crop_of

_SIDE = 448  # pixels of the longer side of a picture
_LONGEST_NAME = 28  # characters of an image's name in a figure


@dataclass(frozen=True)
class _Column:
    """A column of pictures: the predictions of one run."""

    run: Path
    title: str
    predict: Any
    scores: Mapping[str, float]  # image → mIoU, lowest first
    crop: int | None  # side of the scored centre crop; None for whole images


def predictions(
    folder: Path,
    group: Group,
    seed: int,
    amount: int,
    data: Path | None,
    measured: Mapping[str, str],
) -> Figure:
    """Draw evenly spaced images of the ranking by mIoU, and the prediction of every row.

    Args:
        folder: folder of the comparison.
        seed: a seed that every row has a run with.
        amount: number of images.
        data: folder of the data set, if it has moved since training.
        measured: split and protocol of the scores of the comparison; a run may have others, too.
    """
    # The baseline comes first, as in the paper.
    standings = sorted(group.standings, key=lambda standing: standing.row != BASELINE)
    columns = [_column(folder, standing, seed, measured) for standing in standings]
    common = set(columns[0].scores).intersection(*(column.scores for column in columns[1:]))
    means = {name: statistics.fmean(c.scores[name] for c in columns) for name in common}
    names = evenly_spaced(sorted(common, key=lambda name: (means[name], name)), amount)
    return _pictures(
        names,
        columns,
        data,
        f"Labelled share {group.share}, seed {seed}. Images are evenly spaced in the ranking of "
        f"the {measured['split']} split by mean mIoU, lowest first. Below each prediction is its "
        "mIoU.",
    )


def worst(
    folder: Path,
    group: Group,
    standing: Standing,
    amount: int,
    data: Path | None,
    measured: Mapping[str, str],
) -> Figure:
    """Draw the images with the lowest mIoU of a row, and its predictions.

    ``standing`` is that of the row; the other arguments are as of ``predictions``.
    """
    seed = min(by_seed(standing.cells))
    column = _column(folder, standing, seed, measured)
    return _pictures(
        list(column.scores)[:amount],
        [column],
        data,
        f"{standing.title}, labelled share {group.share}, seed {seed}: images of the "
        f"{measured['split']} split with the lowest mIoU, lowest first.",
    )


def _column(folder: Path, standing: Standing, seed: int, measured: Mapping[str, str]) -> _Column:
    run = folder / next(cell.folder for cell in standing.cells if cell.seed == seed)
    evaluation = read_evaluation(
        evaluation_path(run, split=measured["split"], protocol=measured["protocol"])
    )
    return _Column(
        run,
        standing.title,
        open_network(read_run(run)),
        dict(scored(evaluation)),
        crop_of(evaluation),
    )


def _pictures(
    names: Sequence[str], columns: Sequence[_Column], data: Path | None, text: str
) -> Figure:
    read = read_run(columns[0].run, data=data)
    dataset = open_data(read)
    heads = ["image", "ground truth", *(column.title for column in columns)]
    size = (max(4.0, 1.75 * len(heads)), 1.95 * len(names) + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(names), len(heads), squeeze=False)
    for axes_row, name in zip(grid, names, strict=True):
        image, truth = read_pair(dataset.sample(name), dataset.coding, crop=columns[0].crop)
        shown = [shrunk(image, side=_SIDE), _coloured(truth, read.taxonomy)]
        empty = no_data(image)
        for column in columns:
            predicted = np.where(empty, np.uint8(IGNORE), column.predict(image))
            shown.append(_coloured(predicted, read.taxonomy))
        below = ["", "", *(f"{column.scores[name]:.1f} %" for column in columns)]
        for axes, picture, score, head in zip(axes_row, shown, below, heads, strict=True):
            axes.imshow(np.asarray(picture))
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel(score, fontsize=8)
            if axes in grid[0]:
                axes.set_title(head, fontsize=9)
        axes_row[0].set_ylabel(_short(name), fontsize=6)
    figure.legend(
        handles=[
            *(Patch(color=hex_colour(c.colour), label=c.name) for c in read.taxonomy.classes),
            Patch(
                facecolor="#26262a", edgecolor="#77777d", hatch="////", label="no data or no label"
            ),
        ],
        loc="outside lower center",
        ncols=min(len(read.taxonomy), 2 + 2 * len(heads) // 2),
        fontsize=8,
        frameon=False,
    )
    figure.suptitle(text, fontsize=8, wrap=True)
    return figure


def _coloured(labels: NDArray[np.uint8], taxonomy: Taxonomy) -> Image.Image:
    return class_picture(labels, taxonomy, side=_SIDE).convert("RGB")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else "…" + name[-_LONGEST_NAME:]
