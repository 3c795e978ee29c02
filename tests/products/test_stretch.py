"""The formulas, with numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from s5mars.products.no_data import no_data
from s5mars.products.stretch import RULES, Stretch, choose

TWELVE = np.array([[0, 99, 1227, 4095]], np.uint16)


def test_8_bit_values_stay_as_delivered():
    values = np.arange(256, dtype=np.uint8)
    assert choose(values) == Stretch("none")
    assert (Stretch().apply(values) == values).all()
    assert str(Stretch()) == "none: 8-bit values as delivered"


def test_linear_by_the_declared_full_scale():
    chosen = choose(TWELVE, full_scale=4095)
    assert chosen == Stretch("linear", 0, 4095)
    # 99 * 255 / 4095 = 6.16; 1227 * 255 / 4095 = 76.41
    assert chosen.apply(TWELVE).tolist() == [[0, 6, 76, 255]]
    assert str(chosen) == "linear: round(255 * clip((v - 0) / 4095, 0, 1))"
    dark = np.array([[0, 100]], np.uint16)
    assert choose(dark, full_scale=4095).high == 4095  # not by its contents


@pytest.mark.parametrize(("most", "top"), [(200, 255), (256, 4095), (4095, 4095), (4096, 65535)])
def test_without_a_label_the_smallest_full_scale_that_holds(most: int, top: int):
    assert choose(np.array([[0, most]], np.uint16)) == Stretch("linear", 0, top)


def test_square_root_companding():
    chosen = choose(TWELVE, full_scale=4095, rule="sqrt")
    # 255 * sqrt(99 / 4095) = 39.65; 255 * sqrt(1227 / 4095) = 139.58
    assert chosen.apply(TWELVE).tolist() == [[0, 40, 140, 255]]
    assert str(chosen) == "sqrt: round(255 * sqrt(clip((v - 0) / 4095, 0, 1)))"


def test_percentiles_count_valid_pixels_only():
    values = np.linspace(0, 1, 1001, dtype=np.float32)[None]
    valid = np.ones(values.shape, bool)
    values[0, -1], valid[0, -1] = 1e9, False
    chosen = choose(values, valid=valid)
    assert chosen.rule == "percentile"
    assert (chosen.low, chosen.high) == pytest.approx((0.004995, 0.994005), abs=1e-6)
    assert chosen.apply(np.array([0.0, 1e-3, 0.4995, 1.0, np.nan], np.float32)).tolist() == [
        0, 3, 128, 255, 0,
    ]  # fmt: skip
    assert str(chosen).endswith(" / 0.98901, 0, 1))); 0 where v = 0")


def test_only_zero_is_the_black_of_a_border():
    # A shadow at the left edge, and on the right a border that was filled with zeros.
    values = np.linspace(5, 9, 40 * 60, dtype=np.float32).reshape(40, 60)
    values[:, :6], values[:, -6:] = 1.5, 0
    image = np.repeat(choose(values).apply(values)[..., None], 3, axis=-1)
    expected = np.zeros(values.shape, bool)
    expected[:, -6:] = True
    assert (no_data(image) == expected).all()
    values -= 5  # and now 0 is a value like all others
    image = np.repeat(choose(values).apply(values)[..., None], 3, axis=-1)
    assert not no_data(image).any()


def test_negative_whole_numbers_have_no_full_scale():
    values = np.array([[-5, 10]], np.int16)
    assert choose(values).rule == "percentile"
    with pytest.raises(ValueError, match="use 'percentile'"):
        choose(values, rule="linear")


def test_a_flat_image_is_black_and_no_division():
    values = np.full((4, 4), 3.5, np.float32)
    assert choose(values).apply(values).max() == 0


def test_an_unknown_rule_lists_the_choices():
    with pytest.raises(ValueError, match=", ".join(RULES) + ".*gamma"):
        choose(TWELVE, rule="gamma")
    with pytest.raises(ValueError, match=r"needs 8-bit values .got uint16"):
        choose(TWELVE, rule="none")


def test_black_of_16_bits_stays_black_without_a_division_by_zero():
    black = np.zeros((2, 3), np.uint16)
    with np.errstate(all="raise"):
        assert not choose(black).apply(black).any()
