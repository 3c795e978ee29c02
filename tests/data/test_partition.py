from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s5mars.data.layouts import open_dataset
from s5mars.data.partition import as_fraction, draw_partition, pool, withhold
from s5mars.data.partition_lists import write_partitions
from s5mars.data.read import read_label
from s5mars.errors import UserError


@pytest.fixture
def root(tmp_path, fake_data):
    return fake_data.plain(tmp_path / "data", images=40, rare=(3, 4, 5, 30))


def labelled_partition(*args, **kwargs):
    return draw_partition(*args, **kwargs)[0]


def names(samples) -> list[str]:
    return [sample.name for sample in samples]


def damage(path) -> None:
    path.write_bytes(b"not a png")


def test_partitions_are_nested_over_fractions(root):
    dataset = open_dataset(root)
    parts = [set(names(labelled_partition(dataset, f, seed=1))) for f in (0.1, 0.25, 0.5, 1)]
    assert [len(part) for part in parts] == [2, 5, 10, 20]
    for small, large in pairwise(parts):
        assert small < large


def test_the_smallest_partition_has_every_class_where_possible(root):
    dataset = open_dataset(root)
    for seed in range(8):
        chosen = labelled_partition(dataset, 0.1, seed=seed)
        seen = set().union(*(np.unique(read_label(s, dataset.coding)) for s in chosen))
        assert seen >= {0, 1, 2}


def test_it_is_a_function_of_the_seed_alone(root):
    dataset = open_dataset(root)
    parts = [names(labelled_partition(dataset, 0.25, seed=seed)) for seed in (0, 0, 1, 2, 3)]
    assert parts[0] == parts[1]
    assert len({tuple(part) for part in parts}) > 2


def test_a_fraction_as_text_is_a_fraction(root):
    dataset = open_dataset(root)
    assert labelled_partition(dataset, "0.25") == labelled_partition(dataset, 0.25)
    assert as_fraction("lists/0.2.txt") is None
    for wrong in (0, 1.5, "-1", "nan"):
        with pytest.raises(ValueError, match=r"--labelled must be a fraction in \(0, 1\]"):
            labelled_partition(dataset, wrong)


def test_all_of_train_reads_no_label_to_stratify(root):
    for path in sorted((root / "masks").iterdir())[1:]:
        damage(path)
    assert len(labelled_partition(open_dataset(root), 1.0)) == 20


def test_lists_of_names(root, tmp_path):
    dataset = open_dataset(root)
    text = tmp_path / "few.txt"
    text.write_text("# chosen by hand\nsol_011\nsol_003.jpg\n\nimages/sol_007.jpg\n")
    assert names(labelled_partition(dataset, text)) == ["sol_011", "sol_003", "sol_007"]
    as_json = tmp_path / "few.json"
    as_json.write_text(json.dumps(["sol_002"]))
    assert names(labelled_partition(dataset, str(as_json))) == ["sol_002"]


def test_index_lists_count_positions_in_the_train_list(tmp_path, fake_data):
    dataset = open_dataset(fake_data.s5mars_release(tmp_path))
    path = tmp_path / "0.5.txt"
    path.write_text("0\n5\n2\n")
    train = names(dataset.split("train"))
    assert names(labelled_partition(dataset, path)) == [train[0], train[5], train[2]]
    path.write_text("0\n6\n")
    with pytest.raises(ValueError, match=r"0\.5\.txt: positions must be below 6, .*\(got 6\)"):
        labelled_partition(dataset, path)
    path.write_text("1\n1\n")
    with pytest.raises(ValueError, match="duplicate positions"):
        labelled_partition(dataset, path)


def test_numbers_that_are_names_are_not_positions(tmp_path, fake_data):
    root = fake_data.plain(tmp_path / "data", images=8)
    for path in [*(root / "images").iterdir(), *(root / "masks").iterdir()]:
        path.rename(path.with_name(f"{int(path.stem[-3:])}{path.suffix}"))
    fake_data.write_split(root, "train", ["1", "2", "4", "5", "7"])
    fake_data.write_split(root, "val", ["0", "3"])
    fake_data.write_split(root, "test", ["6"])
    listed = tmp_path / "few.txt"
    listed.write_text("1\n2\n4\n")
    dataset = open_dataset(root)
    assert names(labelled_partition(dataset, listed)) == ["1", "2", "4"]
    listed.write_text("1\n2\n3\n")
    with pytest.raises(ValueError, match="3 is in the val split"):
        labelled_partition(dataset, listed)
    fake_data.write_split(root, "val", ["0"])
    listed.write_text("3\n")  # no list names it
    with pytest.raises(ValueError, match="lists 1 unknown file: 3"):
        labelled_partition(open_dataset(root), listed)


def test_the_partition_lists_of_mars_bench(tmp_path, fake_data):
    root = fake_data.mars_bench(tmp_path)
    path = root / "partitions" / "0.40x_partition.csv"
    assert names(labelled_partition(open_dataset(root), path)) == ["mb_1", "mb_3"]
    path.write_text("name\nmb_1\n")
    with pytest.raises(ValueError, match="must have the columns file_id and split"):
        labelled_partition(open_dataset(root), path)
    path.write_text("split,file_id\ntrain,mb_1\ntrain\n")
    with pytest.raises(ValueError, match="a row with the split `train` has no file_id"):
        labelled_partition(open_dataset(root), path)


def test_bad_lists(root, tmp_path):
    dataset = open_dataset(root)
    path = tmp_path / "list.txt"
    for text, message in [
        ("sol_001\nsol_0xx\n", r"list\.txt lists 1 unknown file: sol_0xx"),
        ("sol_021\n", r"list\.txt: sol_021 is in the val split"),
        ("sol_000\nsol_021.png\n", r"list\.txt: sol_021\.png is in the val split"),
        ("\n# nothing\n", r"list\.txt is empty"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            labelled_partition(dataset, path)
    with pytest.raises(FileNotFoundError, match=r"existing list file \(got .*nowhere\.txt\)"):
        labelled_partition(dataset, tmp_path / "nowhere.txt")
    for nothing in ("", Path()):
        with pytest.raises(
            UserError,
            match=r"^--labelled must be a fraction in \(0, 1\] or a list file \(got nothing\)",
        ):
            labelled_partition(dataset, nothing)
    with pytest.raises(UserError, match="--seed must be at least 0"):
        write_partitions(root, labelled=[0.5], seed=-1, out=tmp_path / "x")


def test_chosen_images_need_masks_and_others_do_not(root, tmp_path):
    (root / "masks" / "sol_005.png").unlink()
    dataset = open_dataset(root)
    path = tmp_path / "list.txt"
    path.write_text("sol_001\n")
    assert names(labelled_partition(dataset, path)) == ["sol_001"]
    path.write_text("sol_001\nsol_005\n")
    for labelled in (path, 0.5):
        with pytest.raises(
            ValueError, match=r"sol_005\.jpg is in the labelled .* no mask: add the mask"
        ):
            labelled_partition(dataset, labelled)
    (root / "masks" / "sol_001.png").unlink()
    message = (
        r"2 images of the labelled partition have no mask, such as .*sol_001\.jpg: add the masks"
    )
    with pytest.raises(ValueError, match=message):
        labelled_partition(open_dataset(root), path)


def test_a_partition_without_a_labelled_pixel(root, tmp_path, fake_data):
    for name in ("sol_001", "sol_002"):
        fake_data.write_image(root / "masks" / f"{name}.png", np.full((40, 48), 255, np.uint8))
    path = tmp_path / "list.txt"
    path.write_text("sol_001\nsol_002\n")
    with pytest.raises(ValueError, match=r"list\.txt \(2 images\) has no labelled pixel"):
        labelled_partition(open_dataset(root), path)


def test_damaged_labels_stop_it_unless_they_may_be_skipped(root):
    damage(root / "masks" / "sol_002.png")
    dataset = open_dataset(root)
    with pytest.raises(ValueError, match=r"sol_002\.png is not an image.*--skip-bad"):
        labelled_partition(dataset, 0.5)
    for seed in range(4):
        chosen, damaged = draw_partition(dataset, 0.9, seed=seed, skip_bad=True)
        assert len(chosen) == 17  # 0.9 of 19
        assert "sol_002" not in names(chosen)
        assert len(damaged) == 1
        assert "sol_002.png is not an image" in damaged[0]
    unknown = np.full((40, 48), 77, np.uint8)
    (root / "masks" / "sol_002.png").unlink()
    Image.fromarray(unknown).save(root / "masks" / "sol_002.png")
    with pytest.raises(ValueError, match=r"77 \(1.920 pixels\)"):  # a mistake is not damage
        labelled_partition(dataset, 0.5, skip_bad=True)


# --- unlabelled means never opened ------------------------------------------------------------


def test_with_a_list_no_other_label_is_opened(root, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("sol_003\nsol_004\n")
    for mask in (root / "masks").iterdir():
        if mask.stem not in ("sol_003", "sol_004"):
            damage(mask)
    dataset = open_dataset(root)
    labelled = labelled_partition(dataset, path)
    assert names(labelled) == ["sol_003", "sol_004"]
    for sample in withhold(pool(dataset), labelled):
        if sample.mask is not None:
            read_label(sample, dataset.coding)


def test_pool_is_all_of_train_and_the_unlabelled_images(root):
    dataset = open_dataset(root)
    assert pool(dataset) == (*dataset.split("train"), *dataset.unlabelled)
    assert len(pool(dataset)) == 23


def test_withhold_strips_masks_and_keeps_what_hides(tmp_path, fake_data):
    dataset = open_dataset(fake_data.ai4mars(tmp_path, places=10))
    train = dataset.split("train")
    left = withhold(pool(dataset), train[:3])
    assert [sample.mask for sample in left[:3]] == [sample.mask for sample in train[:3]]
    assert all(sample.mask is None for sample in left[3:])
    assert all(len(sample.hide) == 2 for sample in left)
    assert names(left) == names(pool(dataset))


# --- the command ------------------------------------------------------------------------------


def test_write_partitions(root, tmp_path, capsys):
    out = tmp_path / "lists"
    small, large = write_partitions(root, labelled=[0.5, 0.1], seed=3, out=out)
    assert (small.fraction, small.images, large.images) == (0.1, 2, 10)
    assert small.absent == ()
    assert small.shares["bedrock"] == pytest.approx(1 / 3)
    assert sorted(path.name for path in out.iterdir()) == ["0.1.txt", "0.5.txt", "partitions.json"]
    dataset = open_dataset(root)
    for each in (small, large):
        listed = labelled_partition(dataset, each.path)
        assert listed == labelled_partition(dataset, each.fraction, seed=3)
    assert json.loads((out / "partitions.json").read_text())["partitions"][0]["images"] == 2
    printed = capsys.readouterr().out
    assert "0.1.txt: 2 of 20 images" in printed
    assert "bedrock" in printed
    write_partitions(root, labelled=[0.5, 0.1], seed=3, out=out)  # the same again is no harm
    write_partitions(root, labelled=[0.3], seed=3, out=out)
    recorded = json.loads((out / "partitions.json").read_text())["partitions"]
    assert [entry["list"] for entry in recorded] == ["0.1.txt", "0.3.txt", "0.5.txt"]
    with pytest.raises(ValueError, match=r"has seed 3 \(got 4\), so these lists would"):
        write_partitions(root, labelled=[0.4], seed=4, out=out)
    (out / "0.1.txt").write_text("sol_001\n")
    with pytest.raises(ValueError, match=r"0\.1\.txt exists with other names"):
        write_partitions(root, labelled=[0.1, 0.5], seed=3, out=out)


def test_lists_of_other_data_are_not_nested(root, tmp_path, fake_data):
    out, other = tmp_path / "lists", fake_data.plain(tmp_path / "other", images=40)
    for folder in ("images", "masks"):
        for path in (other / folder).iterdir():
            path.rename(path.with_stem(f"other_{path.stem}"))
    for path in other.glob("splits/*.txt"):
        path.write_text("".join(f"other_{name}\n" for name in path.read_text().splitlines()))
    write_partitions(root, labelled=[0.1], out=out)
    with pytest.raises(UserError, match=r"0\.1\.txt was drawn from other images or labels"):
        write_partitions(other, labelled=[0.5], out=out)
    assert not (out / "0.5.txt").exists()


def test_close_shares_have_lists_of_their_own(root, tmp_path):
    close = write_partitions(root, labelled=[0.1234567, 0.12345678], out=tmp_path / "lists")
    assert [each.path.name for each in close] == ["0.1234567.txt", "0.12345678.txt"]


def test_it_says_where_a_class_is_missing(root, tmp_path, capsys):
    (partition,) = write_partitions(root, labelled=[0.01], out=tmp_path / "lists")
    assert partition.images == 1
    assert partition.absent == ()  # the image of the rarest class has them all
    text = (root / "dataset.yaml").read_text()
    (root / "dataset.yaml").write_text(text + "  - {name: hole, ids: [9]}\n")
    (root / "masks" / "sol_001.png").unlink()
    hole = np.full((40, 48), 9, np.uint8)
    Image.fromarray(hole).save(root / "masks" / "sol_001.png")
    capsys.readouterr()
    (partition,) = write_partitions(root, labelled=[0.01], out=tmp_path / "other")
    assert partition.absent == ("soil", "bedrock", "sky")
    assert "absent classes: soil, bedrock, sky" in capsys.readouterr().out


def test_real_tiles_are_stratified(real_data):
    dataset = open_dataset(real_data / "marsscapes512")
    chosen = labelled_partition(dataset, 0.125)
    assert len(chosen) == 20

    def areas(samples) -> np.ndarray:
        labels = [read_label(s, dataset.coding) for s in samples]
        return sum(np.bincount(label.ravel(), minlength=256)[:6] for label in labels)

    shares = areas(chosen) / areas(dataset.split("train"))
    assert np.abs(shares / 0.125 - 1).max() < 0.25


def test_the_pool_can_be_a_part(root, tmp_path):
    dataset = open_dataset(root)
    dataset = replace(dataset, unlabelled=dataset.unlabelled or dataset.split("val"))
    train, unlabelled = dataset.split("train"), dataset.unlabelled
    assert pool(dataset) == (*train, *unlabelled)
    assert pool(dataset, "train") == train
    assert pool(dataset, "unlabelled") == unlabelled
    path = tmp_path / "list.txt"
    path.write_text(f"{unlabelled[1].name}\n{train[0].name}\n")
    assert pool(dataset, str(path)) == (unlabelled[1], train[0])
    path.write_text(f"{dataset.split('test')[0].name}\n")
    with pytest.raises(
        UserError, match=r"list\.txt: \S+ is in the test split: list only images of"
    ):
        pool(dataset, str(path))
    path.write_text("nowhere\n")
    with pytest.raises(UserError, match=r"list\.txt lists 1 unknown"):
        pool(dataset, str(path))
    with pytest.raises(UserError, match="no unlabelled image"):
        pool(replace(dataset, unlabelled=()), "unlabelled")
