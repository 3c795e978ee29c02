"""Choose the images of a report and draw them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.classes import IGNORE, MaskCoding, Taxonomy, require_same_classes
from s5mars.data.dataset import Dataset
from s5mars.data.read import read_image, read_label
from s5mars.data.trained_on import dataset_of, labelled_list
from s5mars.evaluation.protocols import centre
from s5mars.predict.predictor import load
from s5mars.predict.spacing import evenly_spaced
from s5mars.report.folder import Run
from s5mars.report.pictures import Panel, Shown, class_map, is_wrong, photograph, wrong_pixels
from s5mars.text.numbers import number, score
from s5mars.types import Sample

Predict = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""(H, W, 3) uint8 → (H, W) uint8 class indices."""


def scored(evaluation: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return ``(name, mIoU)`` of the images that have a score, worst first, ties by name."""
    entries = evaluation.get("per_image")
    known = [
        (str(entry["name"]), value)
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, Mapping)
        and "name" in entry
        and (value := number(entry.get("mIoU"))) is not None
    ]
    return sorted(known, key=lambda pair: (pair[1], pair[0]))


def best_worst_typical(
    ranking: Sequence[tuple[str, float]], amount: int
) -> dict[str, list[tuple[str, float]]]:
    """Choose ``amount`` images of every kind, none of them twice.

    Args:
        amount: number of images of each kind; fewer if the ranking is shorter than three times it.

    Returns:
        ``"typical"`` (around the median), ``"best"`` (best first) and ``"worst"`` (worst first).
    """
    amount = min(amount, len(ranking) // 3)
    if amount < 1:
        return {"typical": list(ranking)} if ranking else {}
    start = (len(ranking) - amount) // 2
    return {
        "typical": list(ranking[start : start + amount]),
        "best": list(reversed(ranking[-amount:])),
        "worst": list(ranking[:amount]),
    }


def without_scores(run: Run, dataset: Dataset, amount: int) -> dict[str, list[tuple[str, None]]]:
    """Choose ``amount`` images of each kind for a run that has no score: ``"labelled"`` ones that
    trained it, and ``"unlabelled"`` ones. They are spread over the data.
    """
    kinds = {
        "unlabelled": [sample.name for sample in dataset.unlabelled],
        "labelled": labelled_list(run.folder),
    }
    return {
        kind: [(name, None) for name in evenly_spaced(names, amount)]
        for kind, names in kinds.items()
        if names
    }


def open_data(run: Run) -> Dataset:
    """Open the data set that the run was trained on.

    Raises:
        MissingFileError: if it is missing, or the run does not name it.
        UserError: if it is not a data set, or has other classes.
    """
    dataset = dataset_of(run.folder, run.metrics)
    require_same_classes(run.taxonomy, dataset.taxonomy, run=run.folder, data=dataset.root)
    return dataset


def open_network(run: Run) -> Predict:
    """Open the network of a run as a function of an image.

    Raises:
        MissingFileError: if the weights are missing.
        UserError: if they are damaged.
    """
    return load(run.folder).predict


def show(
    sample: Sample,
    coding: MaskCoding,
    taxonomy: Taxonomy,
    predictions: Sequence[tuple[str, str, Predict]],
    *,
    text: str,
    crop: int | None = None,
    errors: bool = False,
) -> Shown:
    """Read an image and its label, predict it with every network, and draw the panels.

    Args:
        predictions: for each network ``(label, caption, predict)``.
        crop: side of the centre crop that was scored; ``None`` shows the whole image.
        errors: add a panel with the wrong pixels of the last prediction.

    Raises:
        UserError: if the image or its mask cannot be read.
    """
    image = read_image(sample.image)
    truth = (
        read_label(sample, coding)
        if sample.mask is not None
        else np.full(image.shape[:2], IGNORE, np.uint8)
    )
    image, truth = centre(image, crop), centre(truth, crop)
    panels = [
        Panel("image", photograph(image)),
        *([Panel("ground truth", class_map(truth, taxonomy))] if sample.mask is not None else []),
    ]
    predicted = truth
    for label, below, predict in predictions:
        predicted = predict(np.ascontiguousarray(image))
        panels.append(Panel(label, class_map(predicted, taxonomy), text=below))
    if errors:
        panels.append(_errors(image, truth, predicted))
    return Shown(sample.name, text, tuple(panels))


def _errors(
    image: NDArray[np.uint8], truth: NDArray[np.uint8], predicted: NDArray[np.uint8]
) -> Panel:
    labelled = truth != IGNORE
    wrong = is_wrong(truth, predicted)
    below = (
        f"{score(100 * float(wrong.sum() / labelled.sum()), digits=1)}\u202f% of labelled pixels"
        if labelled.any()
        else "no pixel is labelled"
    )
    return Panel("wrong pixels", wrong_pixels(image, wrong), text=below)
