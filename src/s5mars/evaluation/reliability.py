"""Calibration: whether pixels of confidence 0.8 are 80 % correct, and temperature scaling.

Temperature scaling (Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017) divides the
logits z of every pixel by one temperature T > 0, fitted on a split that training did not see:

    T = argmin_T  - mean over labelled pixels of log softmax(z / T)[label]          (NLL)

This changes confidence but no label. Measured before and after:

- expected calibration error, ECE = sum_b n_b / n · |accuracy_b - confidence_b| over 15 bins of
  equal width of the largest probability (Guo et al., eq. 3);
- the risk-coverage curve: the fraction of wrong pixels among the most confident pixels, and its
  mean over all coverages, AURC (Geifman and El-Yaniv, NeurIPS 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from s5mars.classes import IGNORE, MaskCoding
from s5mars.errors import UserError
from s5mars.evaluation.protocols import read_pair
from s5mars.parallel.ahead import ahead
from s5mars.predict.predictor import Predictor
from s5mars.randomness import generator
from s5mars.types import Sample

BINS = 15
LOWEST, HIGHEST = 0.05, 20.0
"""Search range of the temperature; the user is told if the fit stops at either end."""

PIXELS = 500_000
"""Number of sampled pixels: enough to know the ECE to about 0.1 points."""

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Confidence thresholds at which the effect of abstaining is measured."""

_CURVE_POINTS = 200
_CHUNK = 1 << 16  # pixels converted to float64 at a time


@dataclass(frozen=True)
class Pixels:
    """Labelled pixels and their logits."""

    logits: NDArray[np.float32]  # (N, C), up to a constant per pixel, e.g. log-probabilities
    label: NDArray[np.uint8]  # (N,) class index, never IGNORE
    image: NDArray[np.int32]  # (N,) number of the image

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Reliability:
    """Confidence bins of equal width in [0, 1], closed on the right."""

    count: NDArray[np.int64]  # (bins,)
    confidence: NDArray[np.float64]  # (bins,) mean; NaN for empty bins
    accuracy: NDArray[np.float64]  # (bins,) fraction of right pixels; NaN for empty bins

    @property
    def ece(self) -> float:
        """Expected calibration error, in [0, 1]."""
        share = self.count / self.count.sum()
        return float(np.nansum(share * np.abs(self.accuracy - self.confidence)))


@dataclass(frozen=True)
class RiskCoverage:
    """Fraction of wrong pixels among the k most confident of N, for k = 1..N."""

    risk: NDArray[np.float64]  # (N,); averaged over the order of pixels of equal confidence
    threshold: NDArray[np.float64]  # (N,) smallest confidence among these k

    @property
    def aurc(self) -> float:
        """Area under the curve: the mean risk over k = 1..N."""
        return float(self.risk.mean())


def fit_temperature(pixels: Pixels) -> float:
    """The temperature that minimises the NLL, within ``LOWEST``..``HIGHEST``.

    The NLL is convex in 1 / T, so it has one minimum in log T.

    Raises:
        UserError: if there is no pixel.
    """
    if not len(pixels):
        raise UserError("there is no labelled pixel to fit a temperature on")
    # Imported here because it is slow to import, and most commands fit no temperature.
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(pixels, float(np.exp(log_t))),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-5},
    )
    return float(np.exp(found.x))


def is_at_limit(pixels: Pixels, temperature: float) -> bool:
    """Whether the NLL is as small at an end of the range as at the fitted temperature.

    If all pixels are right by a wide margin, it is 0 up to rounding for every low temperature, and
    the fit stops anywhere among them.
    """
    ends = (negative_log_likelihood(pixels, end) for end in (LOWEST, HIGHEST))
    return min(ends) <= negative_log_likelihood(pixels, temperature)


def negative_log_likelihood(pixels: Pixels, temperature: float) -> float:
    """Mean of -log softmax(z / T)[label] over the pixels, in nats."""
    total = 0.0
    for logits, label in _chunks(pixels):
        scaled = logits / temperature
        scaled -= scaled.max(1, keepdims=True)
        total += float(np.log(np.exp(scaled).sum(1)).sum())
        total -= float(scaled[np.arange(len(label)), label].sum())
    return total / len(pixels)


def confidences(
    pixels: Pixels, temperature: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(N,) largest probability at a temperature, and (N,) whether its class is right."""
    max_probability, right = [], []
    for logits, label in _chunks(pixels):
        below = (logits - logits.max(1, keepdims=True)) / temperature
        max_probability.append(1 / np.exp(below).sum(1))
        right.append(logits.argmax(1) == label)
    return np.concatenate(max_probability), np.concatenate(right)


def reliability(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> Reliability:
    """Sort pixels into bins ((b - 1) / BINS, b / BINS] of confidence, by (N,) values in [0, 1].

    Raises:
        UserError: if there is no pixel, or the lengths differ.
    """
    _check(confidence, right)
    index = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    count = np.bincount(index, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, confidence, BINS) / count
        accuracy = np.bincount(index, right, BINS) / count
    return Reliability(count, mean, accuracy)


def risk_coverage(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> RiskCoverage:
    """The risk at every coverage, most confident pixels first, from (N,) values each.

    Raises:
        UserError: if there is no pixel, or the lengths differ.
    """
    _check(confidence, right)
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, wrong = confidence[order].astype(np.float64), ~right[order]
    # Ties have no order: each pixel gets the error rate of its group.
    _, first, size = np.unique(-sorted_confidence, return_index=True, return_counts=True)
    mean = np.add.reduceat(wrong.astype(np.float64), first) / size
    errors = np.cumsum(np.repeat(mean, size))
    return RiskCoverage(errors / np.arange(1, len(wrong) + 1), sorted_confidence)


def collect_pixels(
    predictor: Predictor,
    samples: Sequence[Sample],
    coding: MaskCoding,
    *,
    limit: int = PIXELS,
    seed: int = 0,
    progress: Callable[[], object] | None = None,
) -> Pixels:
    """Log-probabilities of labelled pixels; a uniform draw of ``limit`` pixels if there are more.

    Class biases of the predictor are included.

    Each pixel has a random number that depends on (seed, image, pixel) only, and those with the
    smallest numbers are kept. Thus memory is bounded, all sets of ``limit`` pixels are equally
    likely, and the draw is reproducible. Ignored pixels are excluded before the draw.

    Args:
        predictor: used at temperature 1, whatever its own temperature.
        limit: number of pixels to keep.

    Raises:
        MissingFileError: if a file is missing.
        UserError: if a file is damaged, or no pixel is labelled.
    """
    classes = len(predictor.taxonomy)
    kept = Pixels(np.empty((0, classes), np.float32), np.empty(0, np.uint8), np.empty(0, np.int32))
    rank = np.empty(0)
    pairs = ahead(partial(read_pair, coding=coding), samples)
    for number, (image, label) in enumerate(pairs):
        draw = generator(seed, "calibration", sample=number).random(label.shape)
        # Numbers above the largest kept one cannot enter a full sample.
        chosen = (label != IGNORE) & (draw < (rank.max() if len(rank) == limit else 1))
        if chosen.any():
            logits = _logits_at(predictor, image, chosen)
            kept = Pixels(
                np.concatenate([kept.logits, logits]),
                np.concatenate([kept.label, label[chosen]]),
                np.concatenate([kept.image, np.full(len(logits), number, np.int32)]),
            )
            rank = np.concatenate([rank, draw[chosen]])
        if len(rank) > limit:
            least = np.argpartition(rank, limit)[:limit]
            kept = Pixels(kept.logits[least], kept.label[least], kept.image[least])
            rank = rank[least]
        if progress is not None:
            progress()
    if not len(kept):
        raise UserError(f"nothing can be fitted: no labelled pixel in {len(samples):,} images")
    return kept


def measure(pixels: Pixels, temperature: float) -> dict[str, Any]:
    """Measure calibration and risk at one temperature, for JSON.

    Returns:
        ``temperature``, ``nll``, ``ece`` and ``aurc`` (in [0, 1]), ``bins`` (``count``,
        ``confidence``, ``accuracy``), ``risk_coverage`` (``coverage``, ``risk``, ``threshold`` at
        about 200 points) and ``thresholds`` (the same at ``THRESHOLDS``; the risk is None if no
        pixel is kept), all in [0, 1].
    """
    confidence, right = confidences(pixels, temperature)
    binned, curve = reliability(confidence, right), risk_coverage(confidence, right)
    at = np.unique(np.linspace(1, len(pixels), min(len(pixels), _CURVE_POINTS)).round().astype(int))
    return {
        "temperature": temperature,
        "nll": negative_log_likelihood(pixels, temperature),
        "ece": binned.ece,
        "aurc": curve.aurc,
        "bins": {
            "count": binned.count.tolist(),
            "confidence": _known(binned.confidence),
            "accuracy": _known(binned.accuracy),
        },
        "risk_coverage": {
            "coverage": (at / len(pixels)).tolist(),
            "risk": curve.risk[at - 1].tolist(),
            "threshold": curve.threshold[at - 1].tolist(),
        },
        "thresholds": _at_thresholds(confidence, right),
    }


def _at_thresholds(
    confidence: NDArray[np.float64], right: NDArray[np.bool_]
) -> dict[str, list[Any]]:
    # The points of the curve are too far apart for thresholds that few pixels reach.
    kept = [confidence >= threshold for threshold in THRESHOLDS]
    return {
        "threshold": list(THRESHOLDS),
        "coverage": [float(chosen.mean()) for chosen in kept],
        "risk": [float((~right[chosen]).mean()) if chosen.any() else None for chosen in kept],
    }


def _logits_at(
    predictor: Predictor, image: NDArray[np.uint8], chosen: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """(N, C) log-probabilities of the chosen pixels, row by row."""
    logits = np.empty((int(np.count_nonzero(chosen)), len(predictor.taxonomy)), np.float32)
    place = np.empty(chosen.shape, np.int64)
    place[chosen] = np.arange(len(logits))
    for rows, columns, block in predictor.blocks(image, temperature=1.0):
        here = torch.from_numpy(chosen[rows, columns]).to(block.device)
        # Replace 0 by the smallest positive float32, whose logarithm is finite.
        probability = block[:, here].T.clamp_min(torch.finfo(torch.float32).tiny)
        logits[place[rows, columns][chosen[rows, columns]]] = probability.log().cpu().numpy()
    return logits


def _chunks(pixels: Pixels) -> Iterator[tuple[NDArray[np.float64], NDArray[np.uint8]]]:
    for start in range(0, len(pixels), _CHUNK):
        part = slice(start, start + _CHUNK)
        yield pixels.logits[part].astype(np.float64), pixels.label[part]


def _check(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> None:
    if confidence.shape != right.shape or confidence.ndim != 1 or not len(right):
        raise UserError(
            "confidence and right must be non-empty, one-dimensional and of equal length (got "
            f"shape {confidence.shape} and shape {right.shape})"
        )


def _known(values: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
