"""Class biases: which class a pixel gets when its largest probabilities are close.

The class of largest probability is best for pixel accuracy. For a measure that weights classes
equally, such as mIoU, the best decision is a weighted one (Narasimhan et al., *Consistent
Multiclass Algorithms for Complex Performance Measures*, ICML 2015):

    class = argmax_c (z_c + b_c),    with a bias b_c for each class

Adding class biases after training is the post-hoc variant of logit adjustment (Menon et al.,
*Long-tail learning via logit adjustment*, ICLR 2021), which sets them from the frequencies of the
classes. Here they maximise the mIoU on a split that training did not see.

Few images do not determine the biases: on 26 tiles of MarsScapes, those of the highest mIoU lower
it on other images. They are therefore multiplied by a factor from ``FACTORS``, which
cross-validation over the images of the split chooses. If no factor raises the mIoU of the folds
that were left out by 0.1 points, it is 0, and no class changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.errors import UserError
from s5mars.evaluation.confusion import iou, mean_over_present
from s5mars.evaluation.reliability import Pixels

FOLDS = 5
FEWEST_IMAGES = 2 * FOLDS
"""Below this number of labelled images a fold has a single image, and biases cannot be tested."""

FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0)
STEPS = (2.0, 1.0, 0.5, 0.25)
"""Steps of the search for the biases, coarse to fine, in units of the logits."""

LARGEST_RANGE = 6.0
"""Largest difference between two biases."""

LEAST_GAIN = 2e-4
"""Gain of mIoU (in [0, 1]) for which a bias is changed."""

LEAST_HELD_OUT_GAIN = 1e-3
"""Gain of the cross-validated mIoU (in [0, 1]) below which a model gets no class biases."""


@dataclass(frozen=True, kw_only=True)
class ClassBiases:
    """Biases of all classes, and how well they do on images that they were not fitted on."""

    values: tuple[float, ...]  # (C,), to be added to the logits; 0 for classes without labels
    factor: float  # of FACTORS
    before: float  # mIoU of the split, in [0, 1]
    held_out: float  # mIoU of the folds that were left out, with this factor, in [0, 1]
    images: int


def fit_class_biases(pixels: Pixels) -> ClassBiases:
    """The biases that maximise the mIoU, times the factor that is best on images left out.

    The five folds are consecutive images, because neighbours in a list often show the same scene.

    Raises:
        UserError: if fewer than ``FEWEST_IMAGES`` images have labelled pixels.
    """
    images, index = np.unique(pixels.image, return_inverse=True)
    if len(images) < FEWEST_IMAGES:
        raise UserError(
            f"class biases need pixels of at least {FEWEST_IMAGES} labelled images, to be tested "
            f"on images that they were not fitted on (got {len(images)}); use another --split, or "
            "leave --class-biases fit out"
        )
    counts = _Counts(pixels, index.reshape(-1), len(images))
    fold = np.arange(len(images)) * FOLDS // len(images)
    each = [_search(counts, fold != k) for k in range(FOLDS)]
    scores = [
        _miou(sum(counts.of_images(factor * each[k])[fold == k].sum(0) for k in range(FOLDS)))
        for factor in FACTORS
    ]
    best = int(np.argmax(scores))  # the smallest of equally good factors
    if scores[best] < scores[0] + LEAST_HELD_OUT_GAIN:
        best = 0
    biases = FACTORS[best] * _search(counts, np.ones(len(images), bool))
    return ClassBiases(
        values=tuple(round(float(bias), 6) + 0.0 for bias in biases),
        factor=FACTORS[best],
        before=scores[0],
        held_out=scores[best],
        images=len(images),
    )


def class_biases_entry(pixels: Pixels, *, split: str) -> dict[str, Any]:
    """Fit class biases, and describe them for the JSON file of a checkpoint.

    Returns:
        ``values``, ``factor``, ``split``, ``images``, ``pixels``, and the mIoU of the split in
        percent: ``before``, and ``held_out``, of the folds that were left out.

    Raises:
        UserError: as ``fit_class_biases``.
    """
    found = fit_class_biases(pixels)
    return {
        "values": list(found.values),
        "factor": found.factor,
        "before": 100 * found.before,
        "held_out": 100 * found.held_out,
        "split": split,
        "images": found.images,
        "pixels": len(pixels),
    }


def no_biases(classes: int, reason: str) -> dict[str, Any]:
    """The entry of a checkpoint for which no class biases can be fitted."""
    return {"values": [0.0] * classes, "reason": reason}


def describe_class_biases(entry: Mapping[str, Any], names: Sequence[str]) -> str:
    """Part of a sentence about the entry of a checkpoint, of which only the values are required."""
    on = f"{entry.get('images', 'unknown')} images of the {entry.get('split', 'unknown')} split"
    if not any(entry["values"]):
        reason = entry.get("reason") or (
            f"cross-validation on {on} shows no gain of {100 * LEAST_HELD_OUT_GAIN:g} points of "
            "mIoU"
        )
        return f"none, because {reason}"
    values = ", ".join(
        f"{name} {value:+.2f}" for name, value in zip(names, entry["values"], strict=True)
    )
    if not {"held_out", "before"} <= entry.keys():
        return values
    return (
        f"{values}, fitted on {on}; cross-validated mIoU {entry['held_out']:.1f} %, "
        f"{entry['before']:.1f} % without them"
    )


@dataclass(frozen=True)
class _Counts:
    """Confusion matrices of all images by biases."""

    pixels: Pixels
    index: NDArray[np.integer]  # (N,) image of each pixel
    images: int
    _known: dict[tuple[float, ...], NDArray[np.int64]] = field(default_factory=dict)

    def of_images(self, biases: NDArray[np.float64]) -> NDArray[np.int64]:
        """(images, C, C) counts; equal for biases that differ by a constant."""
        key = tuple((biases - biases[0]).round(6).tolist())
        if key not in self._known:
            classes = len(biases)
            chosen = (self.pixels.logits + np.array(key, np.float32)).argmax(1)
            cell = (self.index * classes + self.pixels.label) * classes + chosen
            counts = np.bincount(cell, minlength=self.images * classes**2)
            self._known[key] = counts.reshape(self.images, classes, classes)
        return self._known[key]


def _search(counts: _Counts, use: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Coordinate ascent of the mIoU over some of the images, from biases of 0.

    The mean bias of the classes that these images show is 0. Other classes keep 0: they have no
    IoU, so that raising them, for pixels that are likely to be wrong, would raise the mIoU.
    """
    biases = np.zeros(counts.pixels.logits.shape[1])
    matrix = counts.of_images(biases)[use].sum(0)
    best, shown = _miou(matrix), matrix.sum(1) > 0
    for step in STEPS:
        moved = True
        while moved:
            moved = False
            for c in np.flatnonzero(shown):
                for change in (step, -step):
                    tried = biases.copy()
                    tried[c] += change
                    tried[shown] -= tried[shown].mean()
                    if np.ptp(tried[shown]) > LARGEST_RANGE:
                        continue
                    score = _miou(counts.of_images(tried)[use].sum(0))
                    if score > best + LEAST_GAIN:
                        biases, best, moved = tried, score, True
    return biases


def _miou(matrix: NDArray[np.int64]) -> float:
    return float(mean_over_present(iou(matrix)))
