from __future__ import annotations

import numpy as np

from s5mars.classes import IGNORE, MaskCoding
from s5mars.data.layouts import open_dataset
from s5mars.data.read import read_image, read_label
from s5mars.products.no_data import no_data


def test_black_borders_have_no_data_and_shadows_have():
    random = np.random.default_rng(0)
    image = random.integers(60, 200, (100, 120, 3)).astype(np.uint8)
    image[:10] = random.integers(0, 3, (10, 120, 3))  # a border, with a little noise
    image[50:60, 50:60] = 0  # black, but inside
    image[90:, 5:25] = random.integers(5, 10, (10, 20, 3))  # a deep shadow at the edge
    image[97:, 100:102] = 0  # pure, but tiny
    expected = np.zeros((100, 120), bool)
    expected[:10] = True
    assert (no_data(image) == expected).all()
    assert not no_data(image[20:85]).any()
    assert no_data(np.zeros((40, 40, 3), np.uint8)).all()


def test_no_data_agrees_with_the_panorama_borders_of_real_tiles(real_data):
    dataset = open_dataset(real_data / "marsscapes512")
    outside = MaskCoding(dict.fromkeys(range(8), 0), frozenset({255}))
    both = either = wrong = 0
    for sample in dataset.split("train")[::8]:
        found = no_data(read_image(sample.image))
        truth = read_label(sample, outside) == IGNORE
        both += (found & truth).sum()
        either += (found | truth).sum()
        wrong += (found & ~truth).sum()
    assert both / either > 0.97
    assert wrong < 1e-4 * either


def test_navcam_shadows_are_no_borders(real_data):
    dataset = open_dataset(real_data / "ai4mars256")
    found = [no_data(read_image(s.image)).any() for s in dataset.unlabelled[::15]]
    assert sum(found) <= 1
