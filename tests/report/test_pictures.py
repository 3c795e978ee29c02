"""Arrays that become pictures: the pixels are looked at."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from s5mars.classes import IGNORE, S5MARS
from s5mars.report.pictures import class_map, is_wrong, photograph, wrong_pixels


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_a_class_has_the_colour_of_the_taxonomy() -> None:
    labels = np.arange(9, dtype=np.uint8).reshape(3, 3)
    shown = np.array(opened(class_map(labels, S5MARS)).convert("RGB"))
    assert [tuple(c) for c in shown.reshape(-1, 3)] == [c.colour for c in S5MARS.classes]


def test_unlabelled_pixels_are_hatched_in_two_dark_tones_no_class_has() -> None:
    shown = opened(class_map(np.full((30, 30), IGNORE, np.uint8), S5MARS)).convert("RGB")
    tones = {colour for _, colour in shown.getcolors()}
    assert len(tones) == 2
    assert max(max(tone) for tone in tones) < 90
    assert not tones & {c.colour for c in S5MARS.classes}


def test_large_pictures_shrink_without_new_classes() -> None:
    labels = np.zeros((100, 1000), np.uint8)
    labels[:, 500:] = 3
    shown = opened(class_map(labels, S5MARS, side=50))
    assert shown.size == (50, 5)
    assert set(np.unique(np.array(shown))) == {0, 3}
    assert opened(photograph(np.zeros((2000, 10, 3), np.uint8), side=50)).size == (1, 50)
    assert opened(photograph(np.zeros((20, 10, 3), np.uint8), side=50)).size == (10, 20)


def test_wrong_pixels_are_loud_and_unlabelled_ones_never_are() -> None:
    image = np.full((48, 96, 3), 128, np.uint8)
    truth = np.zeros((48, 96), np.uint8)
    predicted = truth.copy()
    predicted[:, :32] = 1  # wrong
    predicted[:, 64:] = 1  # not known to be wrong
    truth[:, 64:] = IGNORE
    shown = np.array(opened(wrong_pixels(image, is_wrong(truth, predicted)))).astype(int)
    redness = shown[..., 0] - shown[..., 1]
    assert redness[:, 4:28].min() > 100
    assert abs(redness[:, 36:60]).max() < 10
    assert abs(redness[:, 68:]).max() < 10


def test_no_data_in_the_prediction_is_not_wrong() -> None:
    image = np.full((16, 16, 3), 128, np.uint8)
    predicted = np.full((16, 16), IGNORE, np.uint8)
    wrong = is_wrong(np.zeros((16, 16), np.uint8), predicted)
    shown = np.array(opened(wrong_pixels(image, wrong)))
    assert np.ptp(shown.astype(int), axis=-1).max() < 10
