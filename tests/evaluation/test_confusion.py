"""Confusion matrix and metrics against numbers worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from s5mars.classes import IGNORE, Class, Taxonomy
from s5mars.evaluation.confusion import Confusion, merged_taxonomy

CLASSES = 4
pairs_of_maps = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.uint8, n, elements=st.sampled_from([0, 1, 2, 3, IGNORE])),
        hnp.arrays(np.uint8, n, elements=st.integers(0, CLASSES - 1)),
    )
)


def taxonomy(names: str = "sky ridge soil rock") -> Taxonomy:
    return Taxonomy("test", tuple(Class(n, (i, i, i)) for i, n in enumerate(names.split())))


def counted(truth: object, predicted: object, classes: int = CLASSES) -> Confusion:
    confusion = Confusion(classes)
    confusion.update(np.asarray(truth, np.uint8), np.asarray(predicted, np.uint8))
    return confusion


def naive(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    matrix = np.zeros((CLASSES, CLASSES), np.int64)
    for t, p in zip(truth.ravel(), predicted.ravel(), strict=True):
        if t != IGNORE:
            matrix[t, p] += 1
    return matrix


def test_scores_by_hand() -> None:
    # truth 0: 3 pixels, 2 found; truth 1: 2 pixels, 1 found; truth 2: 1 pixel, found
    c = counted([[0, 0, 0], [1, 1, 2]], [[0, 0, 1], [1, 2, 2]], classes=3)
    assert c.matrix.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert c.matrix.dtype == np.int64
    assert c.support.tolist() == [3, 2, 1]
    np.testing.assert_allclose(c.iou, [2 / 3, 1 / 3, 1 / 2])
    np.testing.assert_allclose(c.acc, [2 / 3, 1 / 2, 1])
    assert c.mIoU == pytest.approx(0.5)
    assert c.mAcc == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert c.pixel_accuracy == pytest.approx(4 / 6)


def test_absent_class_is_nan_and_left_out_of_means_but_its_false_positives_cost() -> None:
    c = counted([0, 0, 1, 1], [0, 2, 1, 1])  # 2 is predicted but never true; 3 is nowhere
    assert np.isnan(c.iou[2:]).all() and np.isnan(c.acc[2:]).all()
    assert c.support.tolist() == [2, 2, 0, 0]
    assert c.mIoU == pytest.approx((0.5 + 1.0) / 2)
    assert c.mAcc == pytest.approx((0.5 + 1.0) / 2)


def test_nothing_counted_gives_nan_without_warnings() -> None:
    c = counted([IGNORE, IGNORE], [0, 1])
    with np.errstate(all="raise"):
        assert math.isnan(c.mIoU) and math.isnan(c.mAcc) and math.isnan(c.pixel_accuracy)
    entry = c.to_dict(taxonomy())
    assert entry["mIoU"] is None
    json.dumps(entry, allow_nan=False)


def test_ignored_pixels_change_nothing_whatever_is_predicted_there() -> None:
    truth = np.array([[0, 1], [IGNORE, IGNORE]], np.uint8)
    a = counted(truth, [[0, 1], [0, 1]])
    b = counted(truth, [[0, 1], [3, IGNORE]])
    assert a == b
    assert a.support.sum() == 2


def test_predictions_and_truth_out_of_range_are_refused_and_named() -> None:
    with pytest.raises(ValueError, match=r"prediction contains \[4\]"):
        counted([0, 1], [4, 1])
    with pytest.raises(ValueError, match=r"prediction contains \[255\]"):
        counted([0, 1], [255, 1])
    with pytest.raises(ValueError, match=r"truth contains \[7\]"):
        counted([7, 1], [0, 1])
    with pytest.raises(ValueError, match="shape"):
        counted([[0, 1]], [0, 1])
    with pytest.raises(ValueError, match="float"):
        Confusion(3).update(np.zeros(3), np.zeros(3))


def test_large_counts_do_not_overflow() -> None:
    big = np.array([[2**40, 1], [0, 2**40]])
    c = Confusion(2, matrix=big) + Confusion(2, matrix=big)
    assert c.matrix[0, 0] == 2**41
    assert c.pixel_accuracy == pytest.approx(1.0)


@pytest.mark.parametrize("kinds", [(np.int64, np.uint64), (np.uint64, np.int8)])
def test_any_kinds_of_integers_are_counted(kinds: tuple[type, type]) -> None:
    c = Confusion(2)
    c.update(np.array([0, 1, 1, 255], kinds[0]), np.array([0, 0, 1, 0], kinds[1]))
    assert c.matrix.tolist() == [[1, 0], [1, 1]]


def test_many_classes_do_not_wrap_in_small_dtypes() -> None:
    truth = np.full(300, 253, np.uint8)
    c = counted(truth, truth, classes=254)
    assert c.matrix[253, 253] == 300


def test_to_dict_is_in_percent_and_strict_json() -> None:
    entry = counted([0, 0, 1, 1], [0, 1, 1, 1]).to_dict(taxonomy())
    assert entry["classes"]["sky"] == {"iou": 50.0, "acc": 50.0, "support": 2}
    assert entry["classes"]["rock"] == {"iou": None, "acc": None, "support": 0}
    assert entry["pixel_accuracy"] == 75.0
    assert json.loads(json.dumps(entry, allow_nan=False)) == entry
    with pytest.raises(ValueError, match="3 classes"):
        counted([0], [0]).to_dict(taxonomy("a b c"))


def test_merged_classes_do_not_distinguish_each_other() -> None:
    truth, predicted = [0, 0, 1, 2, 3, 3], [0, 1, 0, 2, 3, 1]
    merged = counted(truth, predicted).merged([(0, 1)])
    assert merged.matrix.tolist() == [[3, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert merged_taxonomy(taxonomy(), [(0, 1)]).names == ("sky+ridge", "soil", "rock")
    later = counted(truth, predicted).merged([(3, 1)])
    assert later.matrix.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 1]]
    assert merged_taxonomy(taxonomy(), [(3, 1)]).names == ("sky", "ridge+rock", "soil")
    with pytest.raises(ValueError, match="class 4"):
        counted([0], [0]).merged([(0, 4)])
    with pytest.raises(ValueError, match="twice"):
        counted([0], [0]).merged([(0, 1), (1, 2)])


@given(pairs_of_maps)
@settings(deadline=None)
def test_equals_a_naive_loop_and_is_invariant_to_the_order_of_pixels(
    maps: tuple[np.ndarray, np.ndarray],
) -> None:
    truth, predicted = maps
    c = counted(truth, predicted)
    assert np.array_equal(c.matrix, naive(truth, predicted))
    order = np.random.default_rng(0).permutation(len(truth))
    assert counted(truth[order], predicted[order]) == c


@given(pairs_of_maps, st.integers(0, 60))
@settings(deadline=None)
def test_parts_add_up_to_the_whole(maps: tuple[np.ndarray, np.ndarray], cut: int) -> None:
    truth, predicted = maps
    parts = counted(truth[:cut], predicted[:cut]) + counted(truth[cut:], predicted[cut:])
    assert parts == counted(truth, predicted)


@given(pairs_of_maps, st.permutations(range(CLASSES)))
@settings(deadline=None)
def test_renaming_classes_renames_scores(
    maps: tuple[np.ndarray, np.ndarray], order: list[int]
) -> None:
    truth, predicted = maps
    rename = np.full(256, IGNORE, np.uint8)
    rename[:CLASSES] = order
    c, renamed = counted(truth, predicted), counted(rename[truth], rename[predicted])
    np.testing.assert_array_equal(renamed.iou[list(order)], c.iou)
    np.testing.assert_allclose(renamed.mIoU, c.mIoU)
    np.testing.assert_array_equal(renamed.pixel_accuracy, c.pixel_accuracy)
