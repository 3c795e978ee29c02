from __future__ import annotations

import json
import os
import shutil
import unicodedata

import numpy as np
import pytest

from s5mars.classes import AI4MARS, IGNORE, MARS_SEG, S5MARS
from s5mars.data.layouts import LAYOUTS, open_dataset
from s5mars.data.layouts.files import select
from s5mars.data.layouts.plain import read_description
from s5mars.data.partition import draw_partition, pool
from s5mars.data.read import read_label
from s5mars.errors import UserError
from s5mars.predict.sources import find_sources


def names(samples) -> list[str]:
    return [sample.name for sample in samples]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised_and_its_labels_can_be_read(tmp_path, fake_data, layout):
    root = fake_data.LAYOUTS[layout](tmp_path / "data")
    dataset = open_dataset(root)
    assert dataset.layout == layout
    for split in ("train", "val", "test"):
        for sample in dataset.split(split):
            assert sample.image.is_file()
            label = read_label(sample, dataset.coding)
            assert ((label < len(dataset.taxonomy)) | (label == IGNORE)).all()
            assert (label != IGNORE).any()
            assert dataset.sample(sample.name).image == sample.image
    assert all(sample.mask is None for sample in dataset.unlabelled)
    everything = names(dataset.unlabelled)
    everything += [n for split in ("train", "val", "test") for n in names(dataset.split(split))]
    assert len(set(everything)) == len(everything)


def test_plain_folder(tmp_path, fake_data):
    dataset = open_dataset(fake_data.plain(tmp_path))
    assert dataset.taxonomy.name == "fake"
    assert dataset.taxonomy.names == ("soil", "bedrock", "sky")
    assert dataset.taxonomy.classes[0].colour == (0xA0, 0x52, 0x2D)
    assert dataset.taxonomy.classes[2].criterion == "above the horizon"
    assert dataset.coding.index_of == {0: 0, 1: 1, 4: 1, 7: 2}
    assert names(dataset.split("train")) == [f"sol_{i:03d}" for i in range(6)]
    assert [len(dataset.split(s)) for s in ("train", "val", "test")] == [6, 3, 3]
    assert names(dataset.unlabelled) == [f"unlabelled/later_{i:03d}" for i in range(3)]
    assert set(np.unique(read_label(dataset.sample("sol_000"), dataset.coding))) == {0, 1, 2, 255}
    assert set(np.unique(read_label(dataset.sample("sol_001"), dataset.coding))) == {0, 2, 255}


def test_names_are_paths_below_the_image_folder(tmp_path, fake_data):
    root = fake_data.plain(tmp_path)
    (root / "images" / "sol_9").mkdir()
    (root / "masks" / "sol_9").mkdir()
    for kind, ending in (("images", "jpg"), ("masks", "png")):
        (root / kind / f"sol_000.{ending}").rename(root / kind / "sol_9" / f"a.b.{ending}")
    fake_data.write_split(root, "train", ["sol_9/a.b.jpg", "sol_001"])
    assert names(open_dataset(root).split("train")) == ["sol_9/a.b", "sol_001"]


def test_folders_may_be_links(tmp_path, fake_data):
    root = fake_data.plain(tmp_path / "real")
    linked = tmp_path / "linked"
    for kind in ("images", "masks"):
        (linked / kind).mkdir(parents=True)
        (linked / kind / "sols").symlink_to(root / kind)
    (linked / "dataset.yaml").symlink_to(root / "dataset.yaml")
    fake_data.write_split(linked, "train", ["sols/sol_000"])
    assert names(open_dataset(linked).split("train")) == ["sols/sol_000"]


def test_images_without_mask_in_no_split_are_unlabelled(tmp_path, fake_data):
    root = fake_data.plain(tmp_path, unlabelled=0)
    fake_data.write_split(root, "test", ["sol_010", "sol_011"])
    (root / "masks" / "sol_009.png").unlink()
    assert names(open_dataset(root).unlabelled) == ["sol_009"]


def test_s5mars_release_keeps_the_order_of_its_lists(tmp_path, fake_data):
    root = fake_data.s5mars_release(tmp_path)
    dataset = open_dataset(root)
    assert dataset.taxonomy is S5MARS
    assert names(dataset.split("train")) == json.loads((root / "new_train_random.json").read_text())
    assert names(dataset.split("val")) == ["0000MR_x", "0001MR_x"]  # what no list names
    label = read_label(dataset.sample("0000MR_x"), dataset.coding)
    assert set(np.unique(label)) == {0, 1, 2, 3, IGNORE}
    (root / "train.json").write_text(json.dumps(["0000MR_x"]))
    assert names(open_dataset(root).split("train")) == ["0000MR_x"]


@pytest.mark.parametrize("where", [".", "splits"])
def test_the_lists_of_the_release_count_beside_a_folder_without_lists(tmp_path, fake_data, where):
    root = fake_data.s5mars_release(tmp_path)
    before = open_dataset(root).splits
    (root / "splits").mkdir()
    for path in root.glob("*.json"):
        path.rename(root / where / path.name)
    assert open_dataset(root).splits == before
    fake_data.write_split(root, "train", ["0000MR_x"])
    assert names(open_dataset(root).split("train")) == ["0000MR_x"]


def test_mars_bench_ignores_the_unlabelled_id(tmp_path, fake_data):
    root = fake_data.mars_bench(tmp_path)
    dataset = open_dataset(root)
    assert [len(dataset.split(s)) for s in ("train", "val", "test")] == [5, 2, 2]
    assert names(dataset.unlabelled) == ["mb_free"]
    assert set(np.unique(read_label(dataset.sample("mb_0"), dataset.coding))) == {0, 2, 4, IGNORE}
    assert open_dataset(root / "data").layout == "mars-bench"


def test_lists_for_mars_bench_say_which_images_are_unlabelled(tmp_path, fake_data):
    root = fake_data.mars_bench(tmp_path / "data")
    for split, listed in (("train", ["mb_0", "mb_1"]), ("test", ["mb_7", "mb_free"])):
        fake_data.write_split(tmp_path, split, listed)
    dataset = open_dataset(root, splits=tmp_path / "splits")
    assert names(dataset.unlabelled) == []  # the free image is in the test split
    assert names(pool(dataset)) == ["mb_0", "mb_1"]
    assert names(dataset.unlisted) == ["mb_2", "mb_3", "mb_4", "mb_5", "mb_6", "mb_8"]
    assert dataset.has(["mb_4"])


def test_mars_bench_has_no_image_of_val_without_its_mask(tmp_path, fake_data):
    root = fake_data.mars_bench(tmp_path)
    shutil.copy(root / "data/val/images/mb_5.jpg", root / "data/train/images")
    with pytest.raises(UserError, match=r"split 'val' is also in 'train': mb_5"):
        open_dataset(root)


@pytest.mark.parametrize("below", ["msl", "msl/ncam", "."])
def test_ai4mars(tmp_path, fake_data, below):
    dataset = open_dataset(fake_data.ai4mars(tmp_path, below=below))
    assert dataset.taxonomy is AI4MARS
    assert [len(dataset.split(f"test_min{n}")) for n in (1, 2, 3)] == [4, 3, 2]
    assert dataset.split("test") == dataset.split("test_min3")
    assert len(dataset.unlabelled) == 2
    assert dataset.ignored_by == "rover pixels and pixels beyond 30 m"
    label = read_label(dataset.split("train")[0], dataset.coding)
    assert (label[-5:] == IGNORE).all()
    assert (label[:3] == IGNORE).all()
    assert (label[3:7] == 0).all()
    tested = set(names(dataset.split("test_min1")))
    assert not tested & {*names(dataset.split("train")), *names(dataset.unlabelled)}
    assert len(dataset.unlabelled[0].hide) == 2


def test_ai4mars_validation_holds_out_whole_places(tmp_path, fake_data):
    root = fake_data.ai4mars(tmp_path)
    dataset = open_dataset(root)
    places = {s: {n.split("_F")[1][:7] for n in names(dataset.split(s))} for s in ("train", "val")}
    assert places["val"]
    assert not places["val"] & places["train"]
    assert len(dataset.split("train")) + len(dataset.split("val")) == 80
    chosen = names(dataset.split("train"))
    fake_data.write_split(root, "train", chosen[1:])
    fake_data.write_split(root, "val", chosen[:1])
    assert names(open_dataset(root).split("val")) == chosen[:1]
    fake_data.write_split(root, "train", chosen[2:])
    fake_data.write_split(root, "test", chosen[1:2])
    assert names(open_dataset(root).split("test")) == chosen[1:2]
    dataset = open_dataset(root)
    assert len(dataset.split("test_min3")) == 2
    assert len(dataset.unlisted) == len(places["val"]) * 2  # the validation split of before
    assert dataset.has(names(dataset.unlisted))


def test_ai4mars_mastcam_ignores_4_as_well(tmp_path, fake_data):
    folder = fake_data.ai4mars_mastcam(tmp_path)
    dataset = open_dataset(folder)
    assert dataset.layout == "ai4mars" and dataset.taxonomy is AI4MARS
    assert sum(len(dataset.split(s)) for s in ("train", "val", "test")) == 80
    sols = {s: {n[:4] for n in names(dataset.split(s))} for s in ("train", "val", "test")}
    assert not sols["train"] & sols["val"] and not sols["train"] & sols["test"]
    assert not sols["val"] & sols["test"]
    assert names(dataset.unlabelled) == ["0099ML0000990000000000E01_DRCL"]
    assert not dataset.unlisted
    for sample in dataset.split("train")[:2]:
        assert set(np.unique(read_label(sample, dataset.coding))) == {0, 1, 2, 3, IGNORE}
    assert open_dataset(tmp_path / "msl").splits.keys() == dataset.splits.keys()
    kept = names(dataset.split("train"))
    lists = fake_data.write_split(tmp_path / "lists", "train", kept).parent
    unlisted = names(open_dataset(folder, splits=lists).unlisted)
    assert sorted(unlisted) == sorted(names((*dataset.split("val"), *dataset.split("test"))))
    fake_data.ai4mars(tmp_path, below="msl/ncam", places=2)
    assert open_dataset(tmp_path).ignored_by  # Navcam, where both are there


def test_ai4mars_perseverance_has_two_taxonomies(tmp_path, fake_data, caplog):
    folder = fake_data.ai4mars_perseverance(tmp_path)
    dataset = open_dataset(folder)
    assert dataset.layout == "ai4mars" and dataset.taxonomy is AI4MARS
    assert "1 label without a frame is left out" in caplog.text and "VgncRawLeft" in caplog.text
    everything = [s for split in dataset.splits.values() for s in split]
    assert len(everything) == 40
    assert all(s.image.stem == s.mask.stem.partition("_merged")[0] for s in everything)
    assert names(dataset.unlabelled) == ["ncam/NLF_0099_0667799999_1"]  # no label of another camera
    assert open_dataset(folder / "labels" / "NAV").splits == dataset.splits
    assert open_dataset(tmp_path).splits == dataset.splits

    geology = open_dataset(folder / "labels" / "M2020_GEO")
    assert geology.layout == "ai4mars" and len(geology.taxonomy) == 21
    sample = geology.split("train")[0]
    assert sample.image.parent.name == "mcam"
    shown = set(np.unique(read_label(sample, geology.coding))) - {IGNORE}
    assert {geology.taxonomy.names[i] for i in shown} == {
        "bedrock_unsure", "float_rock_unsure", "pebbles", "hill",
    }  # fmt: skip


def test_two_labels_of_one_frame_are_refused(tmp_path, fake_data):
    folder = fake_data.ai4mars_perseverance(tmp_path, sols=1)
    label = next((folder / "labels" / "NAV").glob("NLF*"))
    label.with_name(label.name.replace("_merged0", "_merged12")).write_bytes(label.read_bytes())
    with pytest.raises(UserError, match="labels of one frame"):
        open_dataset(folder)


@pytest.mark.parametrize(("form", "part"), [("release", "MSL"), ("copy", "mer")])
def test_mars_seg_as_released_and_as_co2s_copies_it(tmp_path, fake_data, form, part):
    folder = fake_data.mars_seg(tmp_path, form=form, part=part)
    dataset = open_dataset(folder)
    assert dataset.layout == "mars-seg" and dataset.taxonomy is MARS_SEG
    label = read_label(dataset.sample("1P0000EFF"), dataset.coding)
    assert {dataset.taxonomy.names[i] for i in set(np.unique(label)) - {IGNORE}} == {
        "background", "soil", "bedrock", "rock",
    }  # fmt: skip
    assert [len(dataset.split(s)) for s in ("train", "val", "test")] == [28, 4, 8]


def test_ids_that_mars_seg_does_not_have_are_refused_until_described(tmp_path, fake_data):
    folder = fake_data.mars_seg(tmp_path)
    path = folder / "SegmentationClassPNG" / "1P0000EFF.png"
    fake_data.write_split(folder, "train", ["1P0000EFF"])
    fake_data.write_image(path, np.zeros((40, 48), np.uint8))
    dataset = open_dataset(folder)
    with pytest.raises(UserError, match=r"dataset\.yaml"):
        read_label(dataset.sample("1P0000EFF"), dataset.coding)
    (folder / "dataset.yaml").write_text("classes: [{name: nothing, ids: [0]}]\n")
    dataset = open_dataset(folder)
    assert (read_label(dataset.sample("1P0000EFF"), dataset.coding) == 0).all()


def test_the_two_parts_of_mars_seg_are_two_data_sets(tmp_path, fake_data):
    fake_data.mars_seg(tmp_path, part="MER")
    assert len(open_dataset(tmp_path).split("train")) == 28
    fake_data.mars_seg(tmp_path, part="MSL")
    with pytest.raises(UserError, match=r"holds two data sets: give .*MER or .*MSL"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("whole", [True, False])
def test_the_splits_of_co2s_have_names(tmp_path, fake_data, whole):
    folder = fake_data.mars_seg(tmp_path, form="copy", part="renamed", images=12)
    fake_data.co2s_lists(folder)
    if not whole:
        (folder / "splits" / "all" / "labeled.txt").unlink()
    dataset = open_dataset(folder)
    assert dataset.layout == "mars-seg"
    assert [len(dataset.splits[s]) for s in dataset.splits] == [9, 3]
    assert names(dataset.split("test")) == [f"1P{i:04d}EFF" for i in (9, 10, 11)]
    for name, count in (("co2s-1_8", 2), ("co2s-1_4", 4)):
        assert names(draw_partition(dataset, name)[0]) == [f"1P{i:04d}EFF" for i in range(count)]
    with pytest.raises(UserError, match=r"co2s-1_4, co2s-1_8 .*co2s-1_2"):
        draw_partition(dataset, "co2s-1_2")


# --- files and links ----------------------------------------------------------------------------


def test_a_product_and_its_picture_to_browse_are_one_sample(tmp_path, fake_data):
    root = fake_data.plain(tmp_path)
    (root / "images" / "sol_001.IMG").write_bytes(b"PDS_VERSION_ID")
    assert open_dataset(root).sample("sol_001").image.name == "sol_001.IMG"
    # A label that a wildcard names with its product is no second product.
    given = [tmp_path / name for name in ("a.IMG", "A.lbl", "b.LBL", "a.xml")]
    for path in given:
        path.write_bytes(b"PDS_VERSION_ID")
    found = find_sources(given, out=tmp_path / "out")
    assert [source.path.name for source in found] == ["a.IMG", "b.LBL"]


def test_links_lead_to_no_folder_twice(tmp_path, fake_data, caplog):
    root = fake_data.plain(tmp_path / "a")
    images = root / "images"
    for name in ("l", "m", "0"):
        (images / name).symlink_to(".")
    (images / "0deep").symlink_to("zreal")
    fake_data.write_image(images / "zreal" / "x.jpg", np.zeros((8, 8, 3), np.uint8))
    os.mkfifo(images / "pipe.jpg")
    (images / "gone.jpg").symlink_to("nowhere")
    dataset = open_dataset(root)
    found = {sample.name for sample in dataset.unlabelled}
    assert found == {"zreal/x", *(f"unlabelled/later_00{i}" for i in range(3))}
    assert "1 unreadable file" in caplog.text and "pipe.jpg (a named pipe)" in caplog.text
    assert [source.name for source in find_sources([images], out=tmp_path / "out")] == sorted(
        ["gone", "zreal/x", *(f"sol_{i:03d}" for i in range(12))]
    )


def test_linked_folders_are_searched_below_an_archive(tmp_path, fake_data):
    root = fake_data.plain(tmp_path / "a")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "sols").symlink_to(root / "images")
    names_of = [source.name for source in find_sources([tmp_path / "in"], out=tmp_path / "out")]
    assert names_of == [f"sols/sol_{i:03d}" for i in range(12)]


# --- what is wrong ----------------------------------------------------------------------------


def test_unknown_folder_says_what_was_found_and_looked_for(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"found notes\.txt, pictures/; known layouts") as caught:
        open_dataset(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for layout in LAYOUTS:
        assert f"{layout}: " in message


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="the folder is empty"):
        open_dataset(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file: give the folder"):
        open_dataset(tmp_path / "file")


def test_a_described_folder_is_not_taken_for_a_release(tmp_path, fake_data):
    root = fake_data.plain(tmp_path / "plain")
    (root / "labels").mkdir()
    (root / "labels" / "sol_000.txt").write_text("0 0.5 0.5 0.1 0.1")  # of an object detector
    assert open_dataset(root).layout == "plain"
    releases = {"s5mars": fake_data.s5mars_release, "mars-bench": fake_data.mars_bench}
    for layout, make in releases.items():
        root = make(tmp_path / layout)
        described = "ignore: [9]\nclasses: [{name: ground, ids: [0, 1, 2, 3, 4, 5, 6, 7, 8]}]"
        (root / "dataset.yaml").write_text(described)
        dataset = open_dataset(root)
        assert (dataset.layout, dataset.taxonomy.names) == (layout, ("ground",))
        assert (read_label(dataset.split("train")[0], dataset.coding) == 0).any()


def test_folder_without_images(tmp_path, fake_data):
    root = fake_data.plain(tmp_path)
    for path in (root / "images").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="images contains no image"):
        open_dataset(root)


def test_split_list_with_unknown_names(tmp_path, fake_data):
    root = fake_data.plain(tmp_path)
    fake_data.write_split(root, "val", ["sol_006", "sool_007", "nonsense"])
    with pytest.raises(
        ValueError, match=r"val\.txt lists 2 unknown files: sool_007, nonsense.*'sol_007'"
    ):
        open_dataset(root)


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("a/sol_000", "a/sol_000"),
        ("images/a/sol_000.jpg", "a/sol_000"),
        ("/elsewhere/images/a/sol_000.jpg", "a/sol_000"),
        ("images/sol_000.jpg", "sol_000"),
        ("masks/sol_000.png", "sol_000"),
        ("elsewhere/sol_001.jpg", "sol_001"),  # there is one image of this name
        ("elsewhere/sol_000.jpg", None),
        ("images/b/sol_000.jpg", None),
        (r"images\a\sol_000.jpg", "a/sol_000"),
        (r"D:\mars\images\a\sol_000.jpg", "a/sol_000"),
        (r"images\b\sol_000.jpg", None),
    ],
)
def test_an_entry_with_folders_is_never_another_image(
    entry: str, found: str | None, tmp_path, fake_data
):
    root = fake_data.plain(tmp_path, splits=False)
    (root / "images" / "a").mkdir()
    shutil.copy(root / "images" / "sol_000.jpg", root / "images" / "a")
    dataset = open_dataset(root)
    samples = {s.name: s for s in (*dataset.split("train"), *dataset.unlabelled)}
    assert {"sol_000", "a/sol_000"} <= samples.keys()
    if found is None:
        with pytest.raises(ValueError, match="1 unknown file"):
            select([entry], samples, root)
    else:
        assert [sample.name for sample in select([entry], samples, root)] == [found]


def test_accents_may_be_spelled_in_two_ways(tmp_path, fake_data):
    """As one character, or as macOS stores them: the letter, then the accent."""
    root = fake_data.plain(tmp_path, images=4)
    one, two = (unicodedata.normalize(form, "düne") for form in ("NFC", "NFD"))
    first = names(open_dataset(root).split("train"))[0]
    (root / f"images/{first}.jpg").rename(root / f"images/{two}.jpg")
    (root / f"masks/{first}.png").rename(root / f"masks/{one}.png")
    (root / "splits/train.txt").write_text(f"masks/{one}.png\n", encoding="utf-8")
    (sample,) = open_dataset(root).split("train")
    assert (sample.name, sample.mask) == (two, root / f"masks/{one}.png")
    shutil.copy(root / f"images/{two}.jpg", root / f"images/{one}.jpg")
    with pytest.raises(UserError, match="has no mask"):  # that is another image
        dataset = open_dataset(root)
        assert names(dataset.split("train")) == [one]
        read_label(dataset.sample(two), dataset.coding)


def test_image_in_two_splits_or_twice_in_one(tmp_path, fake_data):
    root = fake_data.plain(tmp_path)
    fake_data.write_split(root, "val", ["sol_000"])
    with pytest.raises(ValueError, match=r"split 'val' is also in 'train': sol_000"):
        open_dataset(root)
    fake_data.write_split(root, "val", ["sol_006", "sol_006"])
    with pytest.raises(ValueError, match=r"val\.txt has 1 duplicate name: sol_006"):
        open_dataset(root)


def test_empty_split_list(tmp_path, fake_data):
    root = fake_data.plain(tmp_path)
    fake_data.write_split(root, "val", [])
    with pytest.raises(ValueError, match=r"val\.txt is empty"):
        open_dataset(root)


def test_mask_without_image_and_two_images_of_one_name(tmp_path, fake_data):
    root = fake_data.plain(tmp_path)
    (root / "images" / "sol_003.jpg").rename(tmp_path / "sol_003.jpg")
    with pytest.raises(ValueError, match=r"sol_003\.png has no image in"):
        open_dataset(root)
    (tmp_path / "sol_003.jpg").rename(root / "images" / "sol_003.jpg")
    (root / "images" / "sol_003.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"sol_003\.png has the same name as sol_003\.jpg"):
        open_dataset(root)


def test_masks_with_a_suffix_are_told_from_lost_ones(tmp_path, fake_data):
    root = fake_data.plain(tmp_path)
    for mask in sorted((root / "masks").iterdir()):
        mask.rename(mask.with_name(f"{mask.stem}_mask.png"))
    with pytest.raises(ValueError, match=r"without '_mask'; rename them, or let `s5mars import "):
        open_dataset(root)
    flat = tmp_path / "flat"
    flat.mkdir()
    for folder in ("images", "masks"):
        for path in (root / folder).iterdir():
            path.rename(flat / path.name)
    said = rf"`s5mars import {flat} --images {flat} --out FOLDER` makes a data set"
    with pytest.raises(ValueError, match=said):
        open_dataset(flat)


def test_unknown_split_or_name_offers_the_nearest(tmp_path, fake_data):
    dataset = open_dataset(fake_data.plain(tmp_path))
    with pytest.raises(ValueError, match=r"no split 'tset', only train.*did you mean 'test'"):
        dataset.split("tset")
    with pytest.raises(ValueError, match=r"no image named 'sol_0000'; did you mean 'sol_000'"):
        dataset.sample("sol_0000")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [", "damaged YAML file"),
        ("- soil", "must contain a mapping"),
        ("name: x", "`classes` must be a list"),
        ("classes: [{ids: [0]}]", "has no `name`"),
        ("class: []", "unknown key 'class'; did you mean 'classes'"),
        ("classes: [{name: a, colour: red}]", "unknown key 'colour'; did you mean 'color'"),
        ("classes: [{name: a, color: red}]", "not a colour"),
        ("classes: [{name: a, ids: [0]}, {name: b, ids: [0]}]", "id 0 is in 'a' and in 'b'"),
        ("classes: [{name: a, ids: [255]}]", "id 255 of 'a' is also in `ignore`: remove"),
        (
            "classes: [{name: a, ids: [one]}]",
            "ids of 'a' must be integers from 0 to 65535 (got 'one')",
        ),
        ("classes: [{name: a}, {name: a}]", "has the class name 'a' twice: rename one"),
    ],
)
def test_bad_descriptions(tmp_path, fake_data, text, message):
    root = fake_data.plain(tmp_path, description=text)
    with pytest.raises(ValueError, match=r"dataset\.yaml") as caught:
        open_dataset(root)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_are_text_whatever_yaml_makes_of_them(tmp_path, fake_data):
    given = ["yes", "no", "1", "010", "2012-08-06", "null", "1e3", "12:30"]
    classes = "".join(f"- {{name: {name}, ids: [{i}]}}\n" for i, name in enumerate(given))
    (tmp_path / "dataset.yaml").write_text(f"name: off\nclasses:\n{classes}")
    taxonomy, _ = read_description(tmp_path / "dataset.yaml")
    assert (taxonomy.name, taxonomy.names) == ("off", tuple(given))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classes: " + "[" * 2000 + "]" * 2000, "nested more than"),
        ("classes:\n- &a {name: x}\n- *a\n", "aliases such as .a are not supported"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nclasses: [{name: *b}]\n", "aliases"),
        ("# " + "x" * (1 << 20), "larger than the limit of 1,048,576 bytes"),
        ("classes: [{name: [a, b]}]", "name and criterion must be strings"),
        ("classes: [{name: a, color: [9, 0, 0]}]", 'color must be a string such as "#a0522d"'),
        ("classes: [{name: a, ids: 1.5}]", r"must be integers from 0 to 65535 \(got '1.5'\)"),
        ("classes: [{name: a, ids: [true]}]", r"must be integers from 0 to 65535 \(got 'true'\)"),
    ],
)
def test_hostile_descriptions(tmp_path, text, said):
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as raised:
        read_description(tmp_path / "dataset.yaml")
    assert "dataset.yaml: " in str(raised.value) and len(str(raised.value)) < 400


def test_a_description_that_is_no_regular_file(tmp_path):
    (tmp_path / "dataset.yaml").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"dataset\.yaml is a device, not a regular file"):
        read_description(tmp_path / "dataset.yaml")


def test_missing_description_says_what_it_must_hold(tmp_path, fake_data):
    root = fake_data.plain(tmp_path)
    (root / "dataset.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"dataset\.yaml is missing: .*classes: \["):
        open_dataset(root)


def test_real_folders(real_data):
    mars = open_dataset(real_data / "marsscapes512")
    assert [len(mars.split(s)) for s in ("train", "val", "test")] == [161, 26, 51]
    assert len(mars.unlabelled) == 321
    assert mars.coding.index_of[6] == mars.coding.index_of[7] == 5
    navcam = open_dataset(real_data / "ai4mars256")
    assert [len(navcam.split(s)) for s in ("train", "val", "test")] == [700, 100, 200]
    assert len(navcam.unlabelled) == 1500


def test_broken_links_without_a_mask_are_left_out_with_a_warning(tmp_path, fake_data, caplog):
    root = fake_data.plain(tmp_path / "data", images=6)
    before = open_dataset(root)
    caplog.clear()
    (root / "unlabelled").mkdir(exist_ok=True)
    for link in ("images/x1.png", "images/x2.png", "unlabelled/x3.png"):
        (root / link).symlink_to("nowhere.png")
    dataset = open_dataset(root)
    assert (dataset.splits, dataset.unlabelled) == (before.splits, before.unlabelled)
    assert caplog.messages == [
        f"{root / 'images'}: 2 broken links are left out; the first: {root / 'images/x1.png'}",
        f"{root / 'unlabelled'}: 1 broken link is left out; the first: "
        f"{root / 'unlabelled/x3.png'}",
    ]
    # One with a mask stays, and its reader says what is wrong.
    image = before.split("train")[0].image
    image.unlink()
    image.symlink_to("nowhere.png")
    assert open_dataset(root).split("train") == before.split("train")
