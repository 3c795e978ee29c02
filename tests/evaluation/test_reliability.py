"""Calibration and risk: numbers by hand, naive oracles, and temperatures that are known."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from s5mars.classes import IGNORE, MaskCoding
from s5mars.evaluation import reliability as module
from s5mars.evaluation.calibrate import at_threshold
from s5mars.evaluation.reliability import (
    Pixels,
    collect_pixels,
    confidences,
    fit_temperature,
    is_at_limit,
    measure,
    negative_log_likelihood,
    reliability,
    risk_coverage,
)
from s5mars.predict.predictor import Predictor

from .standin import TINTS, Tint, maps, sample

CODING = MaskCoding.identity(len(TINTS))


def honest(number: int = 20_000, classes: int = 4) -> Pixels:
    """Labels drawn from the softmax of the logits: the best temperature is about 1."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (number, classes)).astype(np.float32)
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    label = (random.random((number, 1)) > probability.cumsum(1)).sum(1)
    return Pixels(
        logits, np.minimum(label, classes - 1).astype(np.uint8), np.zeros(number, np.int32)
    )


def test_logits_times_k_give_k_times_the_temperature() -> None:
    pixels = honest()
    assert fit_temperature(pixels) == pytest.approx(1, abs=0.03)
    for k in (0.25, 3.0, 8.0):
        scaled = replace(pixels, logits=k * pixels.logits)
        assert fit_temperature(scaled) == pytest.approx(k * fit_temperature(pixels), rel=1e-3)


def test_the_fit_is_the_least_likelihood_and_a_constant_a_pixel_changes_nothing() -> None:
    pixels = honest(2000)
    best = fit_temperature(replace(pixels, logits=2 * pixels.logits))
    shifted = replace(pixels, logits=2 * pixels.logits + 5)
    assert fit_temperature(shifted) == pytest.approx(best, rel=1e-3)
    least = negative_log_likelihood(shifted, best)
    assert all(negative_log_likelihood(shifted, t) > least for t in (0.9 * best, 1.1 * best))


def test_a_fit_without_a_minimum_in_its_range_is_at_its_limit() -> None:
    pixels = honest(2000)
    assert not is_at_limit(pixels, fit_temperature(pixels))
    # The likelihood of the last is flat up to rounding, so the fit stops far from both ends.
    for margin, label in ((0.5, 0), (2.0, 0), (2.0, 1), (20.0, 0)):
        one = Pixels(
            np.array([[margin, 0]], np.float32), np.array([label], np.uint8), np.zeros(1, np.int32)
        )
        assert is_at_limit(one, fit_temperature(one))


def test_likelihood_and_confidence_agree_with_a_loop() -> None:
    pixels, temperature = honest(50), 1.7
    total, sure, right = 0.0, [], []
    for logits, label in zip(pixels.logits.astype(float), pixels.label, strict=True):
        probability = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
        total -= np.log(probability[label])
        sure.append(probability.max())
        right.append(probability.argmax() == label)
    assert negative_log_likelihood(pixels, temperature) == pytest.approx(total / 50, rel=1e-9)
    found = confidences(pixels, temperature)
    np.testing.assert_allclose(found[0], sure, rtol=1e-9)
    assert np.array_equal(found[1], right)


def test_calibration_error_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two bins: (0, 0.5] holds 0.3 wrong and 0.5 right; (0.5, 1] holds 0.9, 0.9, 0.6, one wrong.
    confidence = np.array([0.3, 0.5, 0.9, 0.9, 0.6])
    right = np.array([False, True, True, True, False])
    monkeypatch.setattr(module, "BINS", 2)
    found = reliability(confidence, right)
    assert found.count.tolist() == [2, 3]
    np.testing.assert_allclose(found.confidence, [0.4, 0.8])
    np.testing.assert_allclose(found.accuracy, [0.5, 2 / 3])
    assert found.ece == pytest.approx(2 / 5 * 0.1 + 3 / 5 * (0.8 - 2 / 3))


def test_calibration_error_agrees_with_a_loop_and_empty_bins_count_nothing() -> None:
    random = np.random.default_rng(1)
    confidence = random.uniform(0.25, 1, 500)
    right = random.random(500) < confidence
    total = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    found = reliability(confidence, right)
    assert found.ece == pytest.approx(total)
    assert np.isnan(found.accuracy[0]) and len(found.count) == 15
    sure = reliability(np.ones(3), np.ones(3, bool))
    assert sure.ece == 0 and sure.count[-1] == 3


def test_risk_and_coverage_by_hand() -> None:
    found = risk_coverage(np.array([0.6, 0.9, 0.8, 0.7]), np.array([False, True, False, True]))
    np.testing.assert_allclose(found.risk, [0, 1 / 2, 1 / 3, 1 / 2])
    np.testing.assert_allclose(found.threshold, [0.9, 0.8, 0.7, 0.6])
    assert found.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_equal_confidence_counts_as_the_mean_over_all_orders() -> None:
    confidence = np.array([0.9, 0.5, 0.5, 0.5, 0.2])
    right = np.array([True, False, True, True, False])
    risks = []
    for order in itertools.permutations(range(5)):
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order)):
            wrong = ~right[list(order)]
            risks.append(wrong.cumsum() / np.arange(1, 6))
    np.testing.assert_allclose(risk_coverage(confidence, right).risk, np.mean(risks, 0))


def test_measure_is_json_and_labels_do_not_change() -> None:
    pixels = honest(3000)
    sharp = replace(pixels, logits=4 * pixels.logits)
    before, after = measure(sharp, 1.0), measure(sharp, fit_temperature(sharp))
    assert after["ece"] < 0.03 < before["ece"] and after["nll"] < before["nll"]
    last = [m["risk_coverage"]["risk"][-1] for m in (before, after)]
    assert last[0] == pytest.approx(last[1])  # the share of wrong labels
    assert before["risk_coverage"]["coverage"][-1] == 1
    assert len(before["bins"]["count"]) == 15 and None in before["bins"]["accuracy"]
    assert json.loads(json.dumps(before)) == before


def test_thresholds_are_exact_where_few_pixels_reach_them() -> None:
    logits = np.zeros((20_000, 2), np.float32)
    logits[:38, 0] = 10
    label = np.zeros(20_000, np.uint8)
    label[:19] = 1
    measured = measure(Pixels(logits, label, np.zeros(20_000, np.int32)), 1.0)
    for threshold in (0.6, 0.95):
        assert at_threshold(measured, threshold) == (38 / 20_000, 0.5)
    assert at_threshold(measured, 0.5) == at_threshold(measured, 0) == (1, 19 / 20_000)
    nobody = measure(Pixels(logits[38:], label[38:], np.zeros(19_962, np.int32)), 1.0)
    assert at_threshold(nobody, 0.9) == (0, None)
    assert json.loads(json.dumps(nobody)) == nobody


def test_only_labelled_pixels_are_collected_in_any_windows(tmp_path: Path) -> None:
    truths = []
    samples = []
    for seed in range(3):
        truth, predicted = maps(seed)
        truths.append(truth[truth != IGNORE])
        samples.append(sample(tmp_path, f"{seed}", truth, predicted))
    ticks: list[None] = []
    whole = collect_pixels(
        Predictor(Tint(), TINTS), samples, CODING, progress=lambda: ticks.append(None)
    )
    assert np.array_equal(whole.label, np.concatenate(truths)) and len(ticks) == 3
    settings = {"window": 40, "temperature": 3.0, "abstain": 0.9}
    other = collect_pixels(Predictor(Tint(), TINTS, **settings), samples, CODING)
    np.testing.assert_allclose(other.logits, whole.logits, atol=1e-3)


def test_a_draw_is_uniform_repeatable_and_bounded(tmp_path: Path) -> None:
    truth, predicted = maps(0, 64, 64)
    samples = [sample(tmp_path, name, truth, predicted) for name in "abcd"]
    predictor = Predictor(Tint(), TINTS)
    draws = [
        collect_pixels(predictor, samples, CODING, limit=500, seed=seed).label for seed in (0, 0, 1)
    ]
    assert [len(draw) for draw in draws] == [500] * 3
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])
    everything = np.bincount(truth[truth != IGNORE]) / (truth != IGNORE).sum()
    np.testing.assert_allclose(np.bincount(draws[0]) / 500, everything, atol=0.08)


def test_what_cannot_be_measured_is_named(tmp_path: Path) -> None:
    nothing = np.full((40, 40), IGNORE)
    samples = [sample(tmp_path, "a", nothing, np.zeros((40, 40)))]
    with pytest.raises(ValueError, match="no labelled pixel in 1 images"):
        collect_pixels(Predictor(Tint(), TINTS), samples, CODING)
    empty = np.empty(0, np.uint8)
    with pytest.raises(ValueError, match="no labelled pixel"):
        fit_temperature(Pixels(np.empty((0, 3), np.float32), empty, empty.astype(np.int32)))
    with pytest.raises(ValueError, match=r"shape \(2,\).*shape \(3,\)"):
        risk_coverage(np.ones(2), np.ones(3, bool))
