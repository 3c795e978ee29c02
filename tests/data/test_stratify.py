from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from s5mars.classes import IGNORE, MaskCoding
from s5mars.data.stratify import label_areas, prefix_length, stratified_order
from s5mars.types import Sample


@given(
    areas=arrays(
        np.int64, st.tuples(st.integers(1, 40), st.integers(1, 6)), elements=st.integers(0, 3)
    ),
    seed=st.integers(0, 5),
)
def test_it_is_an_order_that_begins_with_every_class(areas, seed):
    order = stratified_order(areas, seed=seed)
    assert sorted(order) == list(range(len(areas)))
    first = areas[order[: areas.shape[1]]]
    assert ((first > 0).any(0) == (areas > 0).any(0)).all()
    assert (stratified_order(areas, seed=seed) == order).all()


@pytest.fixture
def areas() -> np.ndarray:
    """400 images of 5 classes, from everywhere to 5 % of the images, and some without labels."""
    random = np.random.default_rng(0)
    present = random.random((400, 5)) < [0.9, 0.5, 0.2, 0.1, 0.05]
    areas = present * random.lognormal(6, 0.5, (400, 5)).astype(np.int64)
    areas[::10] = 0
    return areas


@pytest.mark.parametrize("fraction", [0.125, 0.2, 0.5])
def test_beginnings_are_stratified_far_better_than_chance(areas, fraction):
    part = prefix_length(len(areas), fraction)

    def error(order: np.ndarray) -> float:
        shares = areas[order[:part]].sum(0) / areas.sum(0)
        return float(np.abs(shares / fraction - 1).mean())

    chance = np.mean([error(np.random.default_rng(i).permutation(400)) for i in range(20)])
    ours = np.mean([error(stratified_order(areas, seed=i)) for i in range(4)])
    assert ours < chance / 2


def test_images_without_labels_are_spread_too(areas):
    empty = ~areas.any(1)
    first = stratified_order(areas, seed=0)[:200]
    assert empty[first].sum() == pytest.approx(empty.sum() / 2, abs=2)


def test_seeds_give_different_partitions(areas):
    a, b = (set(stratified_order(areas, seed=i)[:80]) for i in range(2))
    assert len(a & b) < 50


def test_the_rarest_class_brings_a_clear_example_of_it():
    areas = np.full((50, 2), 100, np.int64)
    areas[:, 1] = 0
    areas[[7, 8, 9], 1] = [1, 1, 500]  # a stray pixel twice, and once the class
    for seed in range(5):
        assert 9 in stratified_order(areas, seed=seed)[:2]


def test_beginning_is_rounded_and_never_empty():
    assert prefix_length(161, 0.125) == 20
    assert prefix_length(5000, 0.2) == 1000
    assert prefix_length(3, 0.01) == 1
    assert prefix_length(7, 0.25) == 2


def test_each_pixel_has_the_weight_of_its_place(tmp_path):
    """Also beyond the rows that are counted at once."""
    height, width = 300, 7
    label = np.random.default_rng(0).integers(0, 3, (height, width)).astype(np.uint8)
    label[label == 2] = IGNORE
    Image.fromarray(label).save(tmp_path / "mask.png")
    rows, columns = np.arange(1.0, height + 1)[:, None], np.arange(1.0, width + 1)[None]
    sample = Sample("a", tmp_path / "image.png", tmp_path / "mask.png")
    areas, _ = label_areas(
        [sample], MaskCoding.identity(2), 2, weights=lambda width, height: (rows, columns)
    )
    expected = [[(rows * columns)[label == index].sum() for index in (0, 1)]]
    np.testing.assert_allclose(areas, expected)
