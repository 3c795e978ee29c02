"""Images at another resolution: how it is written, and what it does to sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s5mars.data.resolution import FULL, Resolution
from s5mars.errors import UserError


@pytest.mark.parametrize(
    ("text", "expected", "size"),
    [
        ("full", (600, 400), FULL),
        ("1/2", (300, 200), Resolution(divisor=2)),
        ("1/1.5", (400, 267), Resolution(divisor=1.5)),
        ("300", (300, 200), Resolution(side=300)),
        ("1200", (1200, 800), Resolution(side=1200)),
    ],
)
def test_what_is_written(text: str, expected: tuple[int, int], size: Resolution) -> None:
    found = Resolution.parse(text)
    assert found == size
    assert found.size(600, 400) == expected
    assert Resolution.parse(str(found)) == found


@pytest.mark.parametrize("text", ["half", "1/0", "1/0.5", "-3", "8", "2/3", "", "256px"])
def test_what_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--resolution must be full, a fraction"):
        Resolution.parse(text)


@pytest.mark.parametrize("text", ["1/1.2345678", "1/1.0000001", "1/12345.67", "1/65536"])
def test_what_is_recorded_has_all_digits(text: str) -> None:
    assert str(Resolution.parse(text)) == text


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(1, 100))
def test_no_image_vanishes(width: int, height: int, divisor: float) -> None:
    assert min(Resolution(divisor=divisor).size(width, height)) >= 1


def test_a_resized_pixel_is_the_mean_of_what_it_covers() -> None:
    rows = np.repeat(np.arange(0, 240, 2, dtype=np.uint8), 3).reshape(-1, 1, 3)
    image = np.repeat(rows, 8, axis=1)
    small = Resolution(divisor=2).resized(image)
    assert small.shape == (60, 4, 3)
    expected = (image[0::2, ::2].astype(int) + image[1::2, ::2]) / 2
    np.testing.assert_allclose(small[2:-2], expected[2:-2], atol=1)
