"""A mosaic of a known colour image comes back as that image."""

from __future__ import annotations

import numpy as np
import pytest

from s5mars.products.bayer import PATTERNS, debayer


def mosaic_of(colour: np.ndarray, pattern: str) -> np.ndarray:
    """Keep of every pixel the one channel that its filter lets through."""
    mosaic = np.empty(colour.shape[:2], colour.dtype)
    for place, letter in enumerate(pattern):
        there = np.s_[place // 2 :: 2, place % 2 :: 2]
        mosaic[there] = colour[..., "RGB".index(letter)][there]
    return mosaic


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_plane_of_colour_is_exact_inside(pattern: str):
    """Bilinear interpolation reproduces a linear ramp."""
    y, x = np.mgrid[:12, :15].astype(np.float32)
    colour = np.stack([10 + 3 * x, 40 + 2 * y, 90 - x + y], -1)
    found = debayer(mosaic_of(colour, pattern), pattern=pattern)
    np.testing.assert_allclose(found[1:-1, 1:-1], colour[1:-1, 1:-1], atol=1e-4)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_colour_is_exact_up_to_the_border(pattern: str):
    colour = np.tile(np.array([200, 120, 30], np.uint16), (7, 6, 1))
    assert (debayer(mosaic_of(colour, pattern), pattern=pattern) == colour).all()


def test_what_was_measured_stays():
    random = np.random.default_rng(0)
    colour = random.integers(0, 4096, (8, 8, 3)).astype(np.uint16)
    found = debayer(mosaic_of(colour, "RGGB"))
    assert (found[::2, ::2, 0] == colour[::2, ::2, 0]).all()
    assert (found[1::2, 1::2, 2] == colour[1::2, 1::2, 2]).all()


def test_pixels_that_are_not_valid_lend_nothing():
    colour = np.tile(np.array([200, 120, 30], np.uint16), (8, 8, 1))
    mosaic = mosaic_of(colour, "RGGB")
    valid = np.ones(mosaic.shape, bool)
    valid[2:4, 2:4] = False
    mosaic[2:4, 2:4] = 4095
    found = debayer(mosaic, valid=valid)
    assert (found[valid] == (200, 120, 30)).all()


def test_an_unknown_pattern():
    with pytest.raises(ValueError, match=r"one of RGGB, BGGR, GRBG, GBRG .got 'RGBW'"):
        debayer(np.zeros((4, 4)), pattern="RGBW")
