"""Intervals: reproducible, the naive loop's, and as wide as the images differ."""

from __future__ import annotations

import math

import numpy as np
import pytest

from s5mars.evaluation.bootstrap import bootstrap
from s5mars.evaluation.confusion import Confusion
from s5mars.randomness import generator


def images(number: int = 12, *, classes: int = 3, seed: int = 0) -> list[Confusion]:
    random = np.random.default_rng(seed)
    return [
        Confusion(
            classes,
            matrix=random.integers(0, 50, (classes, classes)) + 60 * np.eye(classes, dtype=int),
        )
        for _ in range(number)
    ]


def test_equals_a_loop_that_sums_confusions() -> None:
    parts, draws = images(), 40
    times = generator(3, "bootstrap").multinomial(len(parts), [1 / len(parts)] * len(parts), draws)
    totals = []
    for draw in times:
        total = Confusion(3)
        for count, part in zip(draw, parts, strict=True):
            for _ in range(count):
                total += part
        totals.append(total)
    found = bootstrap(parts, draws=draws, seed=3)
    for name in ("mIoU", "mAcc", "pixel_accuracy"):
        expected = np.quantile([getattr(t, name) for t in totals], [0.025, 0.975])
        np.testing.assert_allclose(getattr(found, name), expected)
    expected = np.quantile([t.iou[1] for t in totals], [0.025, 0.975])
    np.testing.assert_allclose(found.iou[1], expected)


def test_equal_seeds_give_equal_intervals_and_others_others() -> None:
    assert bootstrap(images(), seed=1) == bootstrap(images(), seed=1)
    assert bootstrap(images(), seed=1) != bootstrap(images(), seed=2)


def test_interval_holds_the_score_and_shrinks_with_more_images() -> None:
    few, many = images(8), images(200)
    for parts in (few, many):
        low, high = bootstrap(parts).mIoU
        assert low < sum(parts, Confusion(3)).mIoU < high
    widths = [np.diff(bootstrap(parts).mIoU)[0] for parts in (few, many)]
    assert widths[1] < widths[0] / 2


def test_equal_images_give_a_point() -> None:
    part = images(1)[0]
    found = bootstrap([part] * 5)
    assert found.mIoU == pytest.approx((part.mIoU, part.mIoU))


def test_a_few_images_have_no_interval() -> None:
    for parts in (images(1), images(2), [*images(4), Confusion(3)]):
        found = bootstrap(parts)
        ends = (*found.mIoU, *found.mAcc, *found.pixel_accuracy, *found.iou[0], *found.iou[2])
        assert all(map(math.isnan, ends))


def test_a_class_that_is_rare_or_absent() -> None:
    common = Confusion(3, matrix=[[10, 2, 0], [1, 9, 0], [0, 0, 0]])
    rare = Confusion(3, matrix=[[0, 0, 0], [0, 0, 0], [0, 5, 5]])
    found = bootstrap([*[common] * 5, rare])
    assert all(math.isfinite(end) for end in (*found.mIoU, *found.iou[2]))
    without = bootstrap([common] * 5)
    assert all(math.isnan(end) for end in without.iou[2])
    assert without.mIoU == pytest.approx((common.mIoU, common.mIoU))


def test_images_without_labels_and_nothing_at_all() -> None:
    assert bootstrap([*images(8), *[Confusion(3)] * 40]) == bootstrap(images(8))
    with pytest.raises(ValueError, match="images must not be empty"):
        bootstrap([])
    with pytest.raises(ValueError, match=r"draws must be at least 1 \(got 0\)"):
        bootstrap(images(2), draws=0)
