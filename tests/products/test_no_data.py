from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s5mars.classes import IGNORE, MaskCoding
from s5mars.data.layouts import open_dataset
from s5mars.data.read import open_image, read_image, read_label, without_data
from s5mars.labels.loop import superpixels
from s5mars.predict.reading import Failed, read_product
from s5mars.predict.sources import Source
from s5mars.products.no_data import empty_pixels, no_data
from s5mars.proposals import build, graph
from s5mars.proposals.build import Hardware


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


def test_a_shadow_beside_missing_pixels_is_data() -> None:
    image = np.full((100, 120, 3), 90, np.uint8)
    valid = np.ones((100, 120), bool)
    valid[:, :60] = image[:, :60] = 0
    image[30:70, 60:100] = 8  # a shadow, which touches them
    image[90:] = 0  # a border
    expected = ~valid
    expected[90:] = True
    assert (empty_pixels(image, valid) == expected).all()


def test_missing_pixels_and_black_borders_have_no_data_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    image = np.full((64, 64, 4), 255, np.uint8)
    image[..., :3] = random.integers(60, 200, (64, 64, 3))
    image[:12, :, :3] = 0  # a border
    image[40:44, 40:44, 3] = 0  # transparent, inside
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path)
    expected = np.zeros((64, 64), bool)
    expected[:12] = expected[40:44, 40:44] = True
    opened = open_image(path)
    assert (without_data(opened) == expected).all()
    read = read_product(Source(path, path.name))
    assert not isinstance(read, Failed) and (read.empty == expected).all()
    seen = []  # what the proposers may cover, and what superpixels are made of
    monkeypatch.setattr(graph, "graph_proposals", lambda *_, valid, settings: seen.append(valid))
    build._start("graph", graph.GraphSettings(), Hardware(), 0)(path)
    monkeypatch.setattr(superpixels, "superpixels", lambda *_, valid: seen.append(valid))
    superpixels._of_file(path)
    assert len(seen) == 2 and all((valid == ~expected).all() for valid in seen)


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
