from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s5mars.proposals.draw import decode_window
from s5mars.proposals.window import resample

from .masks import proposal, rectangle


def naive(mask, box, size, blur):
    """Crop the whole window, resize it all, smooth it all: no short cut over the object's box."""
    left, top, right, bottom = box
    deviation = blur * max(mask.shape)
    zoom = size[0] / (bottom - top), size[1] / (right - left)
    return resample(
        np.ascontiguousarray(mask),
        box=box,
        size=size,
        deviation=(deviation * zoom[0], deviation * zoom[1]),
    )


def test_the_identity_window_gives_the_mask_back():
    mask = np.random.default_rng(0).random((40, 50)) < 0.3

    result = decode_window(proposal(mask), box=(0, 0, 50, 40), size=(40, 50))

    np.testing.assert_array_equal(result, mask)


def test_a_whole_pixel_window_is_a_slice():
    mask = np.random.default_rng(1).random((40, 50)) < 0.3

    result = decode_window(proposal(mask), box=(7, 3, 27, 33), size=(30, 20))

    np.testing.assert_array_equal(result, mask[3:33, 7:27])


@pytest.mark.parametrize("blur", [0.0, 0.01])
@pytest.mark.parametrize("zoom", [0.5, 1.0, 1.7, 3.0])
def test_a_rectangle_lands_where_it_should(zoom, blur):
    mask = rectangle(20, 15, 24, 18)  # columns 20..44, rows 15..33 of 80×60
    box = (10.0, 5.0, 70.0, 55.0)
    size = (round(50 * zoom), round(60 * zoom))

    result = decode_window(proposal(mask), box=box, size=size, blur=blur)

    rows, columns = np.flatnonzero(result.any(1)), np.flatnonzero(result.any(0))
    edges = [columns[0], columns[-1] + 1, rows[0], rows[-1] + 1]
    expected = np.array([20 - 10, 44 - 10, 15 - 5, 33 - 5]) * zoom
    np.testing.assert_allclose(edges, expected, atol=1)
    perimeter = 2 * (24 + 18) * zoom
    assert abs(int(result.sum()) - 24 * 18 * zoom**2) <= perimeter


def test_outside_the_image_nothing_is_set():
    whole = np.ones((30, 40), bool)

    result = decode_window(proposal(whole), box=(-10, -5, 50, 35), size=(40, 60))

    expected = np.zeros((40, 60), bool)
    expected[5:35, 10:50] = True
    np.testing.assert_array_equal(result, expected)


def test_a_window_beside_the_object_or_the_image_is_empty():
    item = proposal(rectangle(2, 2, 10, 10))

    assert not decode_window(item, box=(40, 30, 80, 60), size=(30, 40), blur=0.004).any()
    assert not decode_window(item, box=(-90, -90, -50, -60), size=(30, 40)).any()
    empty = proposal(np.zeros((60, 80), bool))
    assert not decode_window(empty, box=(0, 0, 80, 60), size=(60, 80), blur=0.01).any()


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_only_the_objects_surroundings_are_touched_yet_nothing_changes(data):
    seed = data.draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    mask = np.zeros((60, 80), bool)
    top, left = rng.integers(0, 45), rng.integers(0, 60)
    mask[top : top + 15, left : left + 20] = rng.random((15, 20)) < 0.7
    x, y = data.draw(st.floats(-20, 60)), data.draw(st.floats(-20, 50))
    width, height = data.draw(st.floats(5, 60)), data.draw(st.floats(5, 60))
    box, size = (x, y, x + width, y + height), (24, 31)
    blur = data.draw(st.sampled_from([0.0, 0.004, 0.02]))

    result = decode_window(proposal(mask), box=box, size=size, blur=blur)

    # PIL keeps 8 bits between the two passes, so a value next to one half may fall either way.
    assert (result != naive(mask, box, size, blur)).mean() < 0.01


def test_smoothing_removes_threads_and_keeps_blocks():
    mask = rectangle(10, 10, 30, 30) | rectangle(40, 24, 30, 1)

    result = decode_window(proposal(mask), box=(0, 0, 80, 60), size=(60, 80), blur=2 / 80)

    assert not result[:, 45:].any()
    assert result[15:35, 15:35].all()


@pytest.mark.parametrize("box", [(5, 0, 5, 10), (0, 10, 10, 10), (10, 0, 0, 10)])
def test_an_empty_window_is_an_error(box):
    with pytest.raises(ValueError, match="empty"):
        decode_window(proposal(rectangle(0, 0, 5, 5)), box=box, size=(8, 8))
