from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from s5mars.classes import IGNORE, MaskCoding
from s5mars.data.layouts import open_dataset
from s5mars.data.read import (
    DamagedFileError,
    no_data,
    open_hidden,
    open_label,
    open_pair,
    read_image,
    read_label,
)
from s5mars.types import Sample

CODING = MaskCoding({0: 0, 3: 1, 4: 1}, frozenset({255, 9}))


@pytest.fixture
def grey() -> np.ndarray:
    return np.arange(60, dtype=np.uint8).reshape(6, 10) * 4


def labelled(tmp_path, mask: np.ndarray | Image.Image) -> Sample:
    picture = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    picture.save(tmp_path / "mask.png")
    Image.new("RGB", picture.size).save(tmp_path / "image.png")
    return Sample("image", tmp_path / "image.png", tmp_path / "mask.png")


def test_grey_is_repeated_over_three_channels(tmp_path, grey):
    Image.fromarray(grey).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (6, 10, 3)
    assert image.dtype == np.uint8
    assert (image == grey[..., None]).all()
    image[0] = 1  # a user may write into what they read


def test_alpha_is_dropped_not_blended(tmp_path, grey):
    colour = np.stack([grey, grey // 2, grey // 3, np.full_like(grey, 7)], -1)
    Image.fromarray(colour, "RGBA").save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == colour[..., :3]).all()
    Image.fromarray(np.stack([grey, grey // 9], -1), "LA").save(tmp_path / "b.png")
    assert (read_image(tmp_path / "b.png") == grey[..., None]).all()


@pytest.mark.parametrize(("top", "limit"), [(200, 255), (4095, 4095), (3000, 4095), (5000, 65535)])
def test_16_bit_grey_is_scaled_by_the_stated_rule(tmp_path, top, limit):
    values = np.linspace(0, top, 60).astype(np.uint16).reshape(6, 10)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = np.floor(values.astype(float) * 255 / limit + 0.5)
    image = read_image(tmp_path / "a.png")
    assert (image[..., 1] == expected).all()


def test_floating_point_pixels_are_stretched_between_percentiles(tmp_path):
    values = np.linspace(-1, 3, 1200, dtype=np.float32).reshape(30, 40)
    Image.fromarray(values).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")
    low, high = np.percentile(values, [0.5, 99.5])
    expected = np.floor(255 * np.clip((values - low) / (high - low), 0, 1) + 0.5)
    assert np.abs(image[..., 1] - expected).max() <= 1
    Image.fromarray(values * np.nan).save(tmp_path / "b.tif")
    with pytest.raises(DamagedFileError, match=r"b\.tif: no pixel with a value"):
        read_image(tmp_path / "b.tif")


def test_damage_names_the_file_and_the_way_out(tmp_path, grey):
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:-900])
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    for path in (cut, text):
        with pytest.raises(DamagedFileError, match=rf"{path.name}.*--skip-bad"):
            read_image(path)
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        read_image(tmp_path / "gone.jpg")


@pytest.mark.parametrize("form", ["L", "P", "RGB", "I;16"])
def test_ids_become_class_indices_in_every_form_of_mask(tmp_path, form):
    ids = np.array([[0, 3, 4], [255, 9, 0]], np.uint8)
    if form == "P":
        mask = Image.fromarray(ids)
        mask.putpalette([v for i in range(256) for v in (255 - i, i, 7)])
    elif form == "RGB":
        mask = Image.fromarray(np.repeat(ids[..., None], 3, -1))
    else:
        mask = Image.fromarray(ids.astype(np.uint16 if form == "I;16" else np.uint8))
    sample = labelled(tmp_path, mask)
    label = read_label(sample, CODING)
    assert label.dtype == np.uint8
    assert label.tolist() == [[0, 1, 1], [IGNORE, IGNORE, 0]]
    assert open_label(sample, CODING).mode == "L"


def test_unknown_ids_are_listed_with_their_counts(tmp_path):
    sample = labelled(tmp_path, np.array([[0, 7, 7], [8, 3, 255]], np.uint8))
    with pytest.raises(ValueError, match=r"mask\.png.*7 \(2 pixels\), 8 \(1 pixels\).*ignore"):
        read_label(sample, CODING)


def test_a_colour_mask_is_refused(tmp_path):
    sample = labelled(tmp_path, np.zeros((2, 2, 3), np.uint8) + np.array([1, 2, 3], np.uint8))
    with pytest.raises(ValueError, match=r"mask\.png: a colour mask"):
        read_label(sample, CODING)


def test_a_sample_without_mask_is_refused(tmp_path):
    sample = replace(labelled(tmp_path, np.zeros((2, 2), np.uint8)), mask=None)
    with pytest.raises(ValueError, match=r"image\.png: has no mask"):
        read_label(sample, CODING)


def test_hidden_pixels_are_ignored(tmp_path):
    sample = labelled(tmp_path, np.zeros((2, 3), np.uint8))
    Image.fromarray(np.array([[0, 1, 0], [0, 0, 0]], np.uint8)).save(tmp_path / "rover.png")
    Image.fromarray(np.array([[0, 0, 0], [255, 0, 0]], np.uint8)).save(tmp_path / "far.png")
    sample = replace(sample, hide=(tmp_path / "rover.png", tmp_path / "far.png"))
    assert read_label(sample, CODING).tolist() == [[0, IGNORE, 0], [IGNORE, 0, 0]]
    hidden = np.asarray(open_hidden(replace(sample, mask=None), size=(3, 2)))
    assert hidden.tolist() == [[0, 255, 0], [255, 0, 0]]
    with pytest.raises(ValueError, match=r"rover\.png: 3×2 pixels.*4×2"):
        open_hidden(sample, size=(4, 2))


def test_image_and_mask_must_agree_in_size(tmp_path):
    sample = labelled(tmp_path, np.zeros((2, 3), np.uint8))
    assert open_pair(sample, CODING)[0].size == (3, 2)
    Image.new("RGB", (5, 2)).save(sample.image)
    with pytest.raises(ValueError, match=r"image\.png: 5×2.*mask\.png has 3×2: resize"):
        open_pair(sample, CODING)


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
