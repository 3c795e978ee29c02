from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from s5mars.data.audit import audit, checked, readable
from s5mars.data.layouts import LAYOUTS, open_dataset
from s5mars.data.partition import labelled_partition, pool, withhold


@pytest.fixture
def root(tmp_path, fake_data):
    return fake_data.plain(tmp_path)


def kinds(found) -> list[str]:
    return [problem.kind for problem in found.problems]


def truncate(path, *, by: int = 200) -> None:
    path.write_bytes(path.read_bytes()[:-by])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_good_data_has_no_problems(tmp_path, fake_data, layout):
    dataset = open_dataset(fake_data.LAYOUTS[layout](tmp_path / "data"))
    found = audit(dataset)
    assert found.lines == []
    assert found.images >= found.masks > 0
    found.require_clean()


def test_an_image_without_mask_in_a_split(root):
    (root / "masks" / "sol_004.png").unlink()
    found = audit(open_dataset(root))
    assert kinds(found) == ["no mask"]
    with pytest.raises(ValueError, match=r"sol_004\.jpg: in a split, but has no mask: add one"):
        found.require_clean()
    assert kinds(audit(open_dataset(root), splits=["test"])) == []


def test_sizes_that_differ(root):
    Image.fromarray(np.zeros((40, 47), np.uint8)).save(root / "masks" / "sol_004.png")
    found = audit(open_dataset(root))
    assert kinds(found) == ["size"]
    assert "sol_004.jpg: 48×40 pixels, but its mask" in found.lines[0]
    assert "has 47×40: resize" in found.lines[0]


def test_unknown_ids_are_added_up_over_all_masks(root):
    for name, value in (("sol_003", 42), ("sol_007", 42), ("sol_008", 43)):
        mask = np.zeros((40, 48), np.uint8)
        mask[0, :3] = value
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    truncate(root / "images" / "sol_000.jpg")
    found = audit(open_dataset(root))
    assert found.unknown_ids == {42: 6, 43: 3}
    assert len(found.lines) == 2
    assert "3 mask(s) hold ids that the taxonomy does not know: 42 (6 pixels)" in found.lines[0]
    with pytest.raises(ValueError, match=r"sol_003\.png.*`ignore`.*\(and 1 more problems\)$"):
        found.require_clean()


def test_damaged_files_in_every_place(root):
    truncate(root / "images" / "sol_001.jpg")
    (root / "masks" / "sol_002.png").write_text("no")
    (root / "unlabelled" / "later_001.jpg").write_bytes(b"")
    found = audit(open_dataset(root))
    assert kinds(found) == ["damaged"] * 3
    assert all("--skip-bad" in line for line in found.lines)
    assert [p.sample.name for p in found.problems] == ["sol_001", "sol_002", "unlabelled/later_001"]


def test_readable_keeps_the_order_of_the_good_ones(root):
    truncate(root / "images" / "sol_001.jpg")
    dataset = open_dataset(root)
    good, problems = readable(dataset.split("train"), dataset.coding)
    assert [s.name for s in good] == ["sol_000", "sol_002", "sol_003", "sol_004", "sol_005"]
    assert len(problems) == 1
    assert "sol_001.jpg" in problems[0].message


def test_withheld_labels_stay_closed(root, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("sol_000\n")
    for mask in (root / "masks").iterdir():
        if mask.stem != "sol_000":
            mask.write_bytes(b"closed")
    dataset = open_dataset(root)
    samples = withhold(pool(dataset), labelled_partition(dataset, path))
    assert checked(samples, dataset.coding) == samples


def test_skip_bad_skips_damage_and_counts_it(root, caplog):
    truncate(root / "images" / "sol_001.jpg")
    (root / "masks" / "sol_002.png").write_text("no")
    dataset = open_dataset(root)
    with pytest.raises(ValueError, match=r"sol_001\.jpg.*--skip-bad\) \(and 1 more"):
        checked(dataset.split("train"), dataset.coding)
    good = checked(dataset.split("train"), dataset.coding, skip_bad=True)
    assert len(good) == 4
    assert "2 image(s) with damaged files left out" in caplog.text
    with pytest.raises(ValueError, match="no readable image is left"):
        checked(dataset.split("train")[1:3], dataset.coding, skip_bad=True)


def test_skip_bad_does_not_skip_mistakes(root):
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(root / "masks" / "sol_002.png")
    dataset = open_dataset(root)
    with pytest.raises(ValueError, match=r"sol_002\.jpg: 48×40"):
        checked(dataset.split("train"), dataset.coding, skip_bad=True)


def test_a_file_that_vanished(root):
    dataset = open_dataset(root)
    (root / "images" / "sol_001.jpg").unlink()
    assert kinds(audit(dataset)) == ["missing"]
    assert "sol_001.jpg: no such file" in audit(dataset).lines[0]
