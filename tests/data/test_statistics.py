from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from s5mars.data.layouts import open_dataset
from s5mars.data.read import read_image, read_label
from s5mars.data.statistics import dataset_statistics
from s5mars.products.no_data import no_data
from s5mars.report.statistics import as_table, write_statistics


def test_colours_are_those_of_all_pixels_together(tmp_path, fake_data):
    dataset = open_dataset(fake_data.plain(tmp_path, images=8))
    found = dataset_statistics(dataset)
    samples = [s for split in ("train", "val", "test") for s in dataset.split(split)]
    pixels = np.concatenate([read_image(s.image).reshape(-1, 3) for s in samples]) / 255
    assert found.images == 8
    assert found.no_data_pixels == 0
    assert found.mean == pytest.approx(pixels.mean(0))
    assert found.standard_deviation == pytest.approx(pixels.std(0))
    assert found.coefficient_of_variation == pytest.approx(pixels.std(0) / pixels.mean(0))
    assert np.array(found.histogram).sum(1).tolist() == [len(pixels)] * 3


def test_black_borders_are_left_out_of_the_colours_only(tmp_path, fake_data):
    root = fake_data.plain(tmp_path, images=8)
    before = dataset_statistics(open_dataset(root), split="train")
    image = read_image(root / "images" / "sol_001.jpg")
    image[:10] = 0
    Image.fromarray(image).save(root / "images" / "sol_001.jpg", quality=95)
    assert no_data(read_image(root / "images" / "sol_001.jpg")).sum() > 300
    found = dataset_statistics(open_dataset(root), split="train")
    assert found.no_data_pixels > 300
    assert found.pixels == before.pixels
    assert found.mean == pytest.approx(before.mean, abs=0.02)
    assert min(found.mean) > 0.3


def test_labels(tmp_path, fake_data):
    dataset = open_dataset(fake_data.plain(tmp_path, images=8, rare=(0, 5)))
    found = dataset_statistics(dataset)
    labels = [read_label(s, dataset.coding) for split in dataset.splits.values() for s in split]
    counts = np.bincount(np.concatenate(labels).ravel(), minlength=256)
    assert list(found.class_pixels.values()) == counts[:3].tolist()
    assert found.labelled_share == pytest.approx(1 - counts[255] / counts.sum())
    assert sum(found.area_shares.values()) == pytest.approx(1)
    assert found.images_with_class == {"soil": 8, "bedrock": 2, "sky": 8}
    assert found.classes_per_image == (0, 0, 6, 2)
    assert found.labelled_images == 8


def test_an_image_in_several_gold_sets_counts_once(tmp_path, fake_data):
    dataset = open_dataset(fake_data.ai4mars(tmp_path, places=10))
    assert dataset_statistics(dataset).images == 22
    assert dataset_statistics(dataset, split="test_min1").images == 4


def test_without_any_label_shares_are_undefined(tmp_path, fake_data):
    root = fake_data.plain(tmp_path, images=8)
    for path in (root / "masks").iterdir():
        Image.fromarray(np.full((40, 48), 255, np.uint8)).save(path)
    found = write_statistics(root, out=tmp_path / "out")
    assert found.labelled_share == 0
    assert found.classes_per_image == (8, 0, 0, 0)
    written = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert written["area_shares"]["soil"] is None


def test_write_statistics(tmp_path, fake_data, capsys):
    root = fake_data.plain(tmp_path / "data", images=8)
    found = write_statistics(root, out=tmp_path / "out", split="test")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "colours.png", "labels.png", "statistics.json",
    ]  # fmt: skip
    for name in ("colours.png", "labels.png"):
        with Image.open(tmp_path / "out" / name) as figure:
            assert figure.width > 1000
    written = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert written["images"] == 2
    assert written["standard_deviation"] == list(found.standard_deviation)
    assert written["labelled_share"] == found.labelled_share
    printed = capsys.readouterr().out
    assert as_table(found) in printed
    assert "S5Mars (paper)" in printed


def test_bad_input_leaves_nothing_behind(tmp_path, fake_data):
    root = fake_data.plain(tmp_path / "data")
    (root / "images" / "sol_001.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"sol_001\.jpg is empty"):
        write_statistics(root, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
