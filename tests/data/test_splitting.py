"""Split lists: created, read, kept out of the user's folder, extended by labels that come later."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

from s5mars.cli import main
from s5mars.data.dataset import Dataset
from s5mars.data.layouts import LAYOUTS, open_dataset, splitting
from s5mars.data.layouts.files import read_names
from s5mars.errors import UserError, warn_once
from s5mars.text.numbers import plural
from s5mars.types import Sample


@pytest.fixture(autouse=True)
def said_again() -> None:
    """Each test is a process of its own, as far as messages are concerned."""
    warn_once.cache_clear()


def names(samples: Iterable[Sample]) -> list[str]:
    return [sample.name for sample in samples]


def sizes(dataset: Dataset) -> dict[str, int]:
    return {split: len(samples) for split, samples in dataset.splits.items()}


def files(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def add_labels(fake_data: ModuleType, root: Path, *numbers: int) -> list[str]:
    """New images with masks, as a user adds them."""
    source = fake_data.plain(root.parent / "source", images=4, splits=False)
    for number in numbers:
        for folder, ending in (("images", "jpg"), ("masks", "png")):
            shutil.copy(
                source / folder / f"sol_001.{ending}", root / folder / f"sol_{number:03d}.{ending}"
            )
    return [f"sol_{number:03d}" for number in numbers]


# --- few labels -------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [1, 5, 39])
def test_few_labels_are_all_for_training_and_nothing_is_written(
    images: int, tmp_path: Path, fake_data: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    root = fake_data.plain(tmp_path, images=images, splits=False)
    before = files(root)
    dataset = open_dataset(root)
    assert sizes(dataset) == {"train": images}
    assert files(root) == before
    assert f"{plural(images, 'labelled image')} and no split lists" in caplog.text
    way = "needs a second one" if images == 1 else f"`s5mars train --folds {min(images, 5)}`"
    assert way in caplog.text
    open_dataset(root)
    assert len(caplog.records) == 1
    with pytest.raises(ValueError, match="no split 'test', only train: list images ") as raised:
        dataset.split("test")
    assert way in str(raised.value)


def test_labels_that_come_later_join_the_few(tmp_path: Path, fake_data: ModuleType) -> None:
    root = fake_data.plain(tmp_path / "a", images=5, splits=False)
    assert sizes(open_dataset(root)) == {"train": 5}
    add_labels(fake_data, root, 7)
    assert sizes(open_dataset(root)) == {"train": 6}


def test_without_a_mask_there_is_nothing_to_open(tmp_path: Path, fake_data: ModuleType) -> None:
    root = fake_data.plain(tmp_path, images=1, splits=False)
    (root / "masks" / "sol_000.png").unlink()
    with pytest.raises(ValueError, match=r"has no mask: add .* image, or paint one with"):
        open_dataset(root)


# --- lists that are created -------------------------------------------------------------------


def test_missing_splits_are_made_stratified_and_written_down(
    tmp_path: Path, fake_data: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    root = fake_data.plain(tmp_path / "a", images=40, splits=False, rare=range(10))
    dataset = open_dataset(root)
    assert sizes(dataset) == {"train": 28, "val": 4, "test": 8}
    having = {s: sum(int(n[-3:]) < 10 for n in names(dataset.split(s))) for s in dataset.splits}
    assert having == {"train": 7, "val": 1, "test": 2}
    written = read_names(root / "splits" / "train.txt")
    assert written == names(dataset.split("train")) == sorted(written)
    assert "stratified split lists were created (train 28, val 4, test 8)" in caplog.text
    assert files(root) == {"dataset.yaml", "images", "masks", "splits", "unlabelled"}
    assert open_dataset(root).splits == dataset.splits
    again = open_dataset(fake_data.plain(tmp_path / "b", images=40, splits=False, rare=range(10)))
    assert names(again.split("test")) == names(dataset.split("test"))


def test_classes_that_val_or_test_do_not_show_are_named(
    tmp_path: Path, fake_data: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    root = fake_data.plain(tmp_path, images=40, splits=False, rare=[0])
    open_dataset(root)
    for split in ("val", "test"):
        assert f"{root / 'splits' / split}.txt contains no pixel of bedrock" in caplog.text


def test_a_damaged_mask_does_not_stop_the_lists(tmp_path: Path, fake_data: ModuleType) -> None:
    root = fake_data.plain(tmp_path, images=40, splits=False)
    path = root / "masks" / "sol_004.png"
    path.write_bytes(path.read_bytes()[:60])
    dataset = open_dataset(root)
    listed = [name for split in dataset.splits for name in names(dataset.split(split))]
    assert sorted(listed) == [f"sol_{i:03d}" for i in range(40)]


def test_splits_that_cannot_be_written_are_an_error_with_a_way_out(
    tmp_path: Path, fake_data: ModuleType
) -> None:
    root = fake_data.plain(tmp_path, images=40, splits=False)
    (root / "splits").write_text("in the way")
    with pytest.raises(ValueError, match=r"no split lists, and they cannot be written.*--splits"):
        open_dataset(root)
    assert not list(root.glob(".splits*"))


# --- lists elsewhere --------------------------------------------------------------------------


def test_lists_are_kept_out_of_the_users_folder(
    tmp_path: Path, fake_data: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    root, lists = fake_data.plain(tmp_path / "a", images=40, splits=False), tmp_path / "x" / "lists"
    before = files(root)
    out = tmp_path / "stats"
    assert main(["stats", str(root), f"--out={out}", f"--splits={lists}"]) == 0
    assert f"{lists}: stratified split lists were created" in caplog.text
    assert files(root) == before and files(lists) == {"train.txt", "val.txt", "test.txt"}
    assert sizes(open_dataset(root, splits=lists)) == {"train": 28, "val": 4, "test": 8}


def test_a_folder_with_other_files_takes_the_lists_too(
    tmp_path: Path, fake_data: ModuleType
) -> None:
    root, lists = fake_data.plain(tmp_path / "a", images=40, splits=False), tmp_path / "lists"
    lists.mkdir()
    (lists / "README.md").write_text("mine")
    assert sizes(open_dataset(root, splits=lists))["train"] == 28
    assert files(lists) == {"README.md", "train.txt", "val.txt", "test.txt"}


@pytest.mark.parametrize("mounted", [False, True])
def test_an_empty_folder_that_cannot_be_replaced_takes_the_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, mounted: bool
) -> None:
    given, real = tmp_path / "link", tmp_path / "real"
    real.mkdir()
    given.symlink_to(real)
    if mounted:

        def busy(path: Path, target: Path) -> None:
            if target == real:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            os.replace(path, target)  # noqa: PTH105

        monkeypatch.setattr(Path, "replace", busy)
    splitting.write_lists(given, {"train": ["a"], "val": ["b"]}, first_line="for a test")
    assert files(real) == {"train.txt", "val.txt"}
    assert files(tmp_path) == {"link", "real"} and given.is_symlink()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_reads_lists_from_elsewhere(
    layout: str, tmp_path: Path, fake_data: ModuleType
) -> None:
    root = tmp_path / "data"
    fake_data.LAYOUTS[layout](root)
    train = names(open_dataset(root).split("train"))
    lists = tmp_path / "lists"
    splitting.write_lists(lists, {"train": train[1:], "val": train[:1]}, first_line="for a test")
    dataset = open_dataset(root, splits=lists)
    assert names(dataset.split("train")) == train[1:]
    assert names(dataset.split("val")) == train[:1]


# --- labels that come later -------------------------------------------------------------------


def test_new_labels_join_the_train_list_that_the_package_wrote(
    tmp_path: Path, fake_data: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    root = fake_data.plain(tmp_path / "a", images=40, splits=False)
    before = open_dataset(root)
    new = add_labels(fake_data, root, 50, 41)
    caplog.clear()
    after = open_dataset(root)
    assert names(after.split("train")) == [*names(before.split("train")), *sorted(new)]
    assert after.split("test") == before.split("test")
    train = root / "splits" / "train.txt"
    assert [record.getMessage() for record in caplog.records] == [
        f"2 images with new masks were added to {train}, such as sol_041"
    ]
    assert read_names(train) == names(after.split("train"))
    caplog.clear()
    assert open_dataset(root).splits == after.splits
    assert not caplog.records
    train.write_bytes(train.read_bytes().replace(b"\n", b"\r\n"))  # as editors on Windows do
    add_labels(fake_data, root, 42)
    assert len(open_dataset(root).split("train")) == 31


def test_lists_of_the_user_are_kept_and_what_they_leave_out_is_counted(
    tmp_path: Path, fake_data: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    root = fake_data.plain(tmp_path / "a")
    before, text = open_dataset(root), (root / "splits" / "train.txt").read_text()
    assert not caplog.records
    add_labels(fake_data, root, 50, 51)
    assert open_dataset(root).splits == before.splits
    assert (root / "splits" / "train.txt").read_text() == text
    lists = root / "splits"
    assert f"{lists}: the lists leave out 2 labelled images, such as sol_050" in caplog.text


@pytest.mark.parametrize("layout", ["plain", "s5mars"])
def test_hidden_files_of_macos_beside_the_lists_are_no_lists(
    tmp_path: Path, fake_data: ModuleType, layout: str
) -> None:
    root = fake_data.LAYOUTS[layout](tmp_path / "a")
    before = sizes(open_dataset(root))
    for listed in (*root.glob("*.json"), *root.glob("splits/*.txt")):
        listed.with_name(f"._{listed.name}").write_bytes(b"\0\5\x16\7\xff")
    assert sizes(open_dataset(root)) == before


def test_no_mask_is_opened_beside_lists(
    tmp_path: Path, fake_data: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fake_data.plain(tmp_path / "a")
    add_labels(fake_data, root, 50)
    monkeypatch.setattr(splitting, "label_areas", lambda *_, **__: pytest.fail("a mask was read"))
    assert open_dataset(root).split("train")


def test_a_list_without_its_first_line_is_the_users(
    tmp_path: Path, fake_data: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    root = fake_data.plain(tmp_path / "a", images=40, splits=False)
    open_dataset(root)
    path = root / "splits" / "train.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[2:]))
    caplog.clear()
    assert sizes(open_dataset(root))["train"] == 27
    assert "leave out 1 labelled image, such" in caplog.text


def test_lists_that_leave_out_images_on_purpose_say_nothing(
    tmp_path: Path, fake_data: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    root = fake_data.plain(tmp_path / "a", images=5, splits=False)
    lists = {"train": ["sol_001"], "test": ["sol_000"]}
    splitting.write_lists(tmp_path / "lists", lists, first_line="for fold 1 of 5")
    assert sizes(open_dataset(root, splits=tmp_path / "lists")) == {"train": 1, "test": 1}
    assert not caplog.records


def test_new_labels_join_for_now_where_the_list_cannot_be_written(
    tmp_path: Path, fake_data: ModuleType, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    root = fake_data.plain(tmp_path / "a", images=40, splits=False)
    open_dataset(root)
    add_labels(fake_data, root, 50)

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(splitting, "write_text", full)
    assert len(open_dataset(root).split("train")) == 29
    assert (
        "in this run only, because the file cannot be written: No space left on device"
        in caplog.text
    )
    assert len(read_names(root / "splits" / "train.txt")) == 28


def test_a_misspelled_folder_does_not_replace_the_lists_of_the_data(
    tmp_path: Path, fake_data: ModuleType
) -> None:
    root = fake_data.plain(tmp_path / "a", images=45)
    with pytest.raises(UserError, match=r"--splits .*litss does not exist, but .*a.splits has"):
        open_dataset(root, splits=tmp_path / "litss")
    assert not (tmp_path / "litss").exists()
    (tmp_path / "new").mkdir()
    open_dataset(root, splits=tmp_path / "new")
    assert (tmp_path / "new" / "train.txt").is_file()
