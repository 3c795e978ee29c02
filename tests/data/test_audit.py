from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from s5mars.data.audit import readable_samples, report_skipped
from s5mars.data.layouts import LAYOUTS, open_dataset
from s5mars.data.partition import draw_partition, pool, withhold


@pytest.fixture
def root(tmp_path, fake_data):
    return fake_data.plain(tmp_path)


def truncate(path, *, by: int = 200) -> None:
    path.write_bytes(path.read_bytes()[:-by])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_good_data_has_no_problems(tmp_path, fake_data, layout):
    dataset = open_dataset(fake_data.LAYOUTS[layout](tmp_path / "data"))
    samples = (*dataset.split("train"), *dataset.unlabelled)
    assert readable_samples(samples, dataset.coding) == (samples, ())


def test_sizes_that_differ(root):
    Image.fromarray(np.zeros((40, 47), np.uint8)).save(root / "masks" / "sol_004.png")
    dataset = open_dataset(root)
    with pytest.raises(ValueError, match=r"sol_004\.jpg: 48×40 pixels, but .* 47×40: resize"):
        readable_samples(dataset.split("train"), dataset.coding)


def test_all_damaged_files_are_found_and_the_good_samples_keep_their_order(root):
    truncate(root / "images" / "sol_001.jpg")
    (root / "masks" / "sol_002.png").write_text("no")
    (root / "unlabelled" / "later_001.jpg").write_bytes(b"")
    dataset = open_dataset(root)
    good, lines = readable_samples(pool(dataset), dataset.coding, skip_bad=True)
    bad = ["sol_001", "sol_002", "unlabelled/later_001"]
    assert [s for s in pool(dataset) if s.name not in bad] == list(good)
    assert [name.rpartition("/")[2] in line for name, line in zip(bad, lines, strict=True)] == [
        True, True, True,
    ]  # fmt: skip
    assert all("--skip-bad" in line for line in lines)


def test_withheld_labels_stay_closed(root, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("sol_000\n")
    for mask in (root / "masks").iterdir():
        if mask.stem != "sol_000":
            mask.write_bytes(b"closed")
    dataset = open_dataset(root)
    samples = withhold(pool(dataset), draw_partition(dataset, path)[0])
    assert readable_samples(samples, dataset.coding) == (samples, ())


def test_damage_stops_unless_it_may_be_skipped(root, caplog):
    truncate(root / "images" / "sol_001.jpg")
    (root / "masks" / "sol_002.png").write_text("no")
    dataset = open_dataset(root)
    with pytest.raises(ValueError, match=r"sol_001\.jpg.*--skip-bad\) \(and 1 more"):
        readable_samples(dataset.split("train"), dataset.coding)
    good, lines = readable_samples(dataset.split("train"), dataset.coding, skip_bad=True)
    assert len(good) == 4
    report_skipped(lines)
    assert "2 images with damaged files were left out; the first: " in caplog.text


def test_skip_bad_does_not_skip_mistakes(root):
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(root / "masks" / "sol_002.png")
    dataset = open_dataset(root)
    with pytest.raises(ValueError, match=r"sol_002\.jpg: 48×40"):
        readable_samples(dataset.split("train"), dataset.coding, skip_bad=True)


def test_a_file_that_vanished_is_no_damage(root):
    dataset = open_dataset(root)
    (root / "images" / "sol_001.jpg").unlink()
    with pytest.raises(ValueError, match=r"sol_001\.jpg: no such file"):
        readable_samples(dataset.split("train"), dataset.coding, skip_bad=True)
