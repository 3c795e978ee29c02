"""Validation during training, on whole images of one split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from s5mars.classes import IGNORE, MaskCoding, Taxonomy
from s5mars.data.read import open_pair
from s5mars.evaluation.confusion import Confusion
from s5mars.parallel import distributed
from s5mars.predict.predictor import Predictor
from s5mars.types import Sample

CONFIDENT = 0.7
"""Confidence above which a prediction counts as confident in the records: the paper's t_hard, for
every method, so that curves can be compared."""


def validate(
    predictor: Predictor,
    samples: Sequence[Sample],
    coding: MaskCoding,
    *,
    rank: int = 0,
    world: int = 1,
    between: Callable[[], None] = lambda: None,
) -> tuple[Confusion, Confusion]:
    """Confusion matrices of all labelled pixels and of the confident ones.

    Each image is scored once, by one process. ``between`` is called before each image, and may
    raise an error to end the validation.
    """
    classes = len(predictor.taxonomy)
    everything, confident = Confusion(classes), Confusion(classes)
    for sample in samples[rank::world]:
        between()
        image, label = (np.asarray(opened) for opened in open_pair(sample, coding))
        result = predictor.segment(image)
        # Pixels that the predictor marks as no data are not scored.
        truth = np.where(result.labels == IGNORE, np.uint8(IGNORE), label)
        everything.update(truth, result.labels)
        sure = np.where(result.confidence > CONFIDENT * 255, truth, np.uint8(IGNORE))
        confident.update(sure, result.labels)
    return _sum_over_processes(everything), _sum_over_processes(confident)


def pseudo_label_record(
    everything: Confusion, confident: Confusion, taxonomy: Taxonomy
) -> dict[str, Any]:
    """The quality of confident predictions on the validation labels.

    Returns:
        ``accuracy``: share of the confident pixels that are right; ``confident_share``: share of
        the labelled pixels that are confident; for each class ``accuracy`` (of the pixels
        confidently predicted as the class, the share that is right), ``share`` (of the pixels
        predicted as the class, the share that is confident) and ``predicted`` (its share of all
        confident predictions). None where nothing was predicted.
    """
    right = np.diag(confident.matrix)
    sure = confident.matrix.sum(0)
    predicted = everything.matrix.sum(0)
    return {
        "confidence": CONFIDENT,
        "accuracy": _share(right.sum(), sure.sum()),
        "confident_share": _share(sure.sum(), predicted.sum()),
        "classes": {
            name: {
                "accuracy": _share(right[i], sure[i]),
                "share": _share(sure[i], predicted[i]),
                "predicted": _share(sure[i], sure.sum()),
            }
            for i, name in enumerate(taxonomy.names)
        },
    }


def _share(part: np.integer, whole: np.integer) -> float | None:
    return float(part / whole) if whole else None


def _sum_over_processes(confusion: Confusion) -> Confusion:
    summed = distributed.total(torch.from_numpy(confusion.matrix))
    return Confusion(confusion.classes, matrix=summed.numpy())
