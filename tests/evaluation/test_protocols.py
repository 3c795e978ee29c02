"""Scoring samples: every labelled pixel once, and only what the protocol names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s5mars.classes import IGNORE, MaskCoding
from s5mars.evaluation.confusion import Confusion
from s5mars.evaluation.protocols import evaluate_samples, find_protocol
from s5mars.predict.predictor import Predictor
from s5mars.types import Sample

from .standin import TINTS, Tint, maps, sample

CODING = MaskCoding.identity(len(TINTS))


def counted(truth: np.ndarray, predicted: np.ndarray) -> Confusion:
    confusion = Confusion(len(TINTS))
    confusion.update(truth, predicted)
    return confusion


def test_images_and_their_sum_are_what_is_counted_by_hand(tmp_path: Path) -> None:
    pairs = [maps(seed) for seed in range(4)]
    samples = [sample(tmp_path, f"s{i}", *pair) for i, pair in enumerate(pairs)]
    ticks: list[None] = []
    found = evaluate_samples(
        Predictor(Tint(), TINTS), samples, CODING, progress=lambda: ticks.append(None)
    )
    assert list(found.images) == ["s0", "s1", "s2", "s3"]
    assert list(found.images.values()) == [counted(*pair) for pair in pairs]
    assert found.confusion == sum((counted(*pair) for pair in pairs), Confusion(len(TINTS)))
    assert len(ticks) == 4 and found.without_labels == 0


def test_windows_score_every_pixel_once(tmp_path: Path) -> None:
    truth, predicted = maps(0, 150, 170)
    one = [sample(tmp_path, "a", truth, predicted)]
    found = evaluate_samples(Predictor(Tint(), TINTS, window=64, batch=3), one, CODING)
    assert found.confusion == counted(truth, predicted)


def test_what_the_network_says_on_ignored_pixels_changes_nothing(tmp_path: Path) -> None:
    truth, predicted = maps(0)
    other = np.where(truth == IGNORE, (predicted + 1) % len(TINTS), predicted).astype(np.uint8)
    scores = [
        evaluate_samples(
            Predictor(Tint(), TINTS), [sample(tmp_path / name, "a", truth, answer)], CODING
        ).confusion
        for name, answer in (("one", predicted), ("other", other))
    ]
    assert not np.array_equal(predicted, other)
    assert scores[0] == scores[1]


def test_paper_protocol_is_the_centre_crop(tmp_path: Path) -> None:
    truth, predicted = maps(0, 1030, 1200)
    model = Tint()
    found = evaluate_samples(
        Predictor(model, TINTS), [sample(tmp_path, "a", truth, predicted)], CODING, protocol="paper"
    )
    middle = np.s_[3 : 3 + 1024, 88 : 88 + 1024]
    assert model.shapes == [(1024, 1024)]
    assert found.confusion == counted(truth[middle], predicted[middle])


def test_paper_protocol_takes_the_whole_of_a_smaller_image(tmp_path: Path) -> None:
    truth, predicted = maps(0)
    samples = [sample(tmp_path, "a", truth, predicted)]
    predictor = Predictor(Tint(), TINTS)
    both = [evaluate_samples(predictor, samples, CODING, protocol=p) for p in ("paper", "full")]
    assert both[0].confusion == both[1].confusion


def test_images_without_labels_are_counted_but_not_predicted(tmp_path: Path) -> None:
    truth, predicted = maps(0)
    empty = np.full_like(truth, IGNORE)
    samples = [sample(tmp_path, "a", truth, predicted), sample(tmp_path, "b", empty, predicted)]
    model = Tint()
    found = evaluate_samples(Predictor(model, TINTS), samples, CODING)
    assert found.without_labels == 1 and len(found.images) == 2 and len(model.shapes) == 1
    with pytest.raises(ValueError, match="no labelled pixel in 1 images"):
        evaluate_samples(Predictor(model, TINTS), samples[1:], CODING)


def test_bad_samples_are_named(tmp_path: Path) -> None:
    truth, predicted = maps(0)
    good = sample(tmp_path, "a", truth, predicted)
    predictor = Predictor(Tint(), TINTS)
    with pytest.raises(ValueError, match=r"a\.png.*mask"):
        evaluate_samples(predictor, [Sample("a", good.image)], CODING)
    smaller = sample(tmp_path / "small", "c", truth[:40, :40], predicted)
    with pytest.raises(ValueError, match=r"c\.png.*64×48.*40×40"):
        evaluate_samples(predictor, [good, smaller], CODING)


def test_unknown_protocol_offers_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"full, paper \(got 'papr'\); did you mean 'paper'\?"):
        find_protocol("papr")
