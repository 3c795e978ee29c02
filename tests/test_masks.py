"""The command ``s5mars masks``, and what training makes of a store."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from apart import start_command
from s5mars.cli import main
from s5mars.data.layouts import open_dataset
from s5mars.errors import UserError
from s5mars.proposals.coco import export_json, import_json
from s5mars.proposals.draw import ObjectFilter, coverage
from s5mars.proposals.prepare import object_store
from s5mars.proposals.proposal import Proposal, proposal_from_mask
from s5mars.proposals.store import ObjectStore, write_store
from s5mars.report.masks import coloured
from s5mars.types import Sample

SIZE = (40, 48)  # (H, W) of the fake images


@pytest.fixture(scope="module")
def data(fake_data: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = fake_data.plain(tmp_path_factory.mktemp("masks") / "data")
    return root


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "masks.parquet"
    assert main(["masks", str(data), "--proposer", "graph", "--out", str(out)]) == 0
    return out


def block(*, confidence: float = 0.99, size: tuple[int, int] = SIZE, side: int = 10) -> Proposal:
    mask = np.zeros(size, bool)
    mask[5 : 5 + side, 8 : 8 + side] = True
    return proposal_from_mask(mask, predicted_iou=confidence, stability=0.9, proposer="sam")


def names(data: Path) -> list[str]:
    return [sample.name for sample in open_dataset(data).split("train")]


def test_the_store_of_a_split_in_shards(made: Path, data: Path) -> None:
    store = ObjectStore(made)
    assert made.is_dir()
    assert set(store.names) == set(names(data))
    assert store.proposer == "graph"


def test_all_takes_every_image(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "all"
    command = ["masks", str(data), "--split", "all", "--shard", "4", "--out", str(out)]
    assert main(command) == 0
    assert len(ObjectStore(out)) == 12 + 3
    assert len(list(out.glob("*.parquet"))) == 4


def test_all_takes_labelled_images_that_no_list_names(data: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(data, tmp_path / "data")
    listed = copy / "splits" / "train.txt"
    first, *others = listed.read_text().split()
    listed.write_text("\n".join(others))
    assert first not in names(copy)
    out = tmp_path / "all"
    assert main(["masks", str(copy), "--split", "all", "--out", str(out)]) == 0
    assert first in ObjectStore(out).names


def test_a_killed_command_goes_on_where_it_stopped(data: Path, tmp_path: Path) -> None:
    """The real command with two processes, a real kill -9."""
    words = ["masks", str(data), "--split", "all", "--shard", "1"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    child = start_command([*words, "--workers", "2", "--out", str(killed)])
    while len(list(killed.glob("*.parquet"))) < 2:
        assert child.is_alive()
        time.sleep(0.002)
    child.kill()
    child.join()
    for out in (killed, whole):
        assert main([*words, "--out", str(out)]) == 0
    stores = [
        {path.name: path.read_bytes() for path in out.glob("*.parquet")} for out in (killed, whole)
    ]
    assert stores[0] == stores[1] and len(stores[0]) == 15


def test_a_picture_of_the_kept_masks(made: Path, data: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    command = ["masks", str(data), "--show", str(made), "--out", str(sheet), "--images", "2"]
    assert main(command) == 0
    first = sheet.read_bytes()
    assert main([*command, "--seed", "0"]) == 0
    with Image.open(sheet) as picture:
        assert picture.width > 1000
    assert first == sheet.read_bytes()


def test_masks_are_coloured_apart_and_the_rest_left_alone() -> None:
    image = np.full((*SIZE, 3), 100, np.uint8)
    large, small = np.zeros((2, *SIZE), bool)
    large[5:30, 5:30] = True
    small[10:20, 10:20] = True

    shown = coloured(image, [small, large])

    assert (shown[~large] == 100).all()
    assert len({tuple(shown[at]) for at in ((7, 7), (15, 15), (35, 35))}) == 3
    assert tuple(shown[5, 10]) == (255, 255, 255) == tuple(shown[10, 12])


def test_json_there_and_back(made: Path, data: Path, tmp_path: Path) -> None:
    folder, again = tmp_path / "json", tmp_path / "again.parquet"
    assert main(["masks", str(made), "--export-json", str(folder)]) == 0
    assert main(["masks", str(data), "--import-json", str(folder), "--out", str(again)]) == 0

    stores = ObjectStore(made), ObjectStore(again)
    assert set(stores[0].names) == set(stores[1].names)
    for name in stores[0].names:
        assert [p.counts for p in stores[0].proposals(name)] == [
            p.counts for p in stores[1].proposals(name)
        ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["DATA"], "--out is missing"),
        (["--out", "x"], "the folder of the data set"),
        (["DATA", "--out", "x", "--points", "3"], "--points needs --proposer sam (got graph)"),
        (["DATA", "--out", "x", "--seed", "3"], "--seed is an option of --show"),
        (["DATA", "--out", "x", "--proposer", "sam"], "sam needs --weights"),
        (["DATA", "--out", "x", "--proposer", "sam", "--weights", "/no"], "/no: no such folder"),
        (
            ["DATA", "--out", "x", "--workers", "0"],
            "--workers and --shard must be at least 1 (got 0 and 64)",
        ),
        (["DATA", "--out", "x", "--split", "vla"], "did you mean 'val'"),
        (["DATA", "--show", "no.parquet", "--out", "x.png"], "no.parquet: no such object store"),
        (["DATA", "--show", "MADE", "--out", "x.jpg"], "--out must end in .png (got x.jpg)"),
        (
            ["DATA", "--show", "MADE", "--out", "x.png", "--images", "0"],
            "--images must be at least 1",
        ),
        (["DATA", "--show", "MADE", "--out", "x.png", "--device", "cpu"], "--device is an option"),
        (["DATA", "--show", "MADE", "--split", "val", "--out", "x.png"], "lacks 3 of 3 images"),
        (["DATA", "--show", "MADE", "--out", "x.png", "--seed", "-4"], "--seed must be at least 0"),
        (
            ["DATA", "--show", "MADE", "--out", "x.png", "--workers", "0"],
            "--workers has no effect with --show: leave it out",
        ),
        (["DATA", "--show", "MADE", "--out", "x.png", "--proposer", "graph"], "--proposer has no"),
        (["MADE", "--export-json", "x", "--out", "y"], "--out has no effect with --export-json"),
        (["MADE", "--export-json", "x", "--split", "test"], "--split has no effect with --export"),
        (["MADE", "--export-json", "x", "--shard", "3"], "--shard has no effect with --export"),
        (["MADE", "--export-json", "x", "--images", "3"], "--images is an option of --show"),
        (
            ["--import-json", "no", "--out", "x", "--split", "bogus"],
            "--split has no effect with --import-json without DATA",
        ),
        (["--import-json", "no", "--out", "x", "--workers", "3"], "--workers has no effect with"),
        (["--import-json", "no", "--out", "x", "--engine", "ray"], "--engine has no effect with"),
        (["DATA", "--show", "MADE", "--import-json", "y", "--out", "x"], "one at a time"),
        (["--import-json", "no", "--out", "x.parquet"], "no: no such folder"),
        (["--import-json", "no", "--out", "MADE"], "exists: choose another --out"),
        (["no", "--export-json", "x"], "no: no such object store"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    said: str,
    data: Path,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"DATA": str(data), "MADE": str(made)}
    assert main(["masks", *(places.get(word, word) for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_damaged_shard_is_named(
    made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = next(made.glob("*.parquet"))
    (tmp_path / "part-x.parquet").write_bytes(shard.read_bytes()[:-20])
    assert main(["masks", str(data), "--out", str(tmp_path)]) == 2
    assert "part-x.parquet: damaged" in capsys.readouterr().err


def write(path: Path, rows: list[tuple[str, list[Proposal]]]) -> ObjectStore:
    write_store(path, rows, proposer="sam")
    return ObjectStore(path)


def test_images_without_a_mask_are_counted_by_reason(data: Path, tmp_path: Path) -> None:
    samples = open_dataset(data).split("train")
    a, b, c, d, e, f = (sample.name for sample in samples)
    doubtful = [block(confidence=0.9), block(side=1)]
    rows = [(a, [block()]), (b, []), (c, doubtful), (d, [block()]), (f, [block()])]
    store = write(tmp_path / "s.parquet", rows)

    found = coverage(store, samples, filter=ObjectFilter())

    assert (found.unknown, found.empty, found.unqualified) == ((e,), (b,), (c,))
    assert (found.images, found.without) == (6, 3)
    for part in ("3 of 6 images", f"1 not in the store (such as {e})", "1 without any mask"):
        assert part in found.sentence
    whole = write(tmp_path / "whole.parquet", [(name, [block()]) for name in names(data)])
    assert coverage(whole, samples, filter=ObjectFilter()).sentence == ""


def test_masks_of_another_size_are_an_error(data: Path, tmp_path: Path) -> None:
    samples = open_dataset(data).split("train")
    rows = [(sample.name, [block()]) for sample in samples[2:]]
    rows += [(sample.name, [block(size=(80, 96))]) for sample in samples[:2]]
    write(tmp_path / "s.parquet", rows)

    with pytest.raises(
        ValueError,
        match=rf"2 of 6 images have another size .*, such as {samples[0].name}: .*96×80",
    ):
        object_store(tmp_path / "s.parquet", samples, cache=tmp_path / "cache")


def test_a_store_of_other_images_is_an_error(data: Path, tmp_path: Path) -> None:
    samples = open_dataset(data).split("train")
    write(tmp_path / "s.parquet", [("other", [block()])])
    with pytest.raises(ValueError, match=r"lacks 6 of 6 images .* has others .other"):
        object_store(tmp_path / "s.parquet", samples, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("other", r"lacks 6 of 6 images .*has others \(x\): make the masks"),
        ("none", r"lacks 6 of 6 images .*is empty: make the masks of these"),
        ("size", r"the masks of 6 of 6 images have another size than their image, such as "),
        ("cut", r"damaged object store .*: delete it and make it again"),
    ],
)
def test_a_bad_store_stops_training_before_it_starts(
    kind: str, said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(name, [block(size=(80, 96) if kind == "size" else SIZE)]) for name in names(data)]
    rows = {"other": [("x", [block()])], "none": []}.get(kind, rows)
    store = tmp_path / "s.parquet"
    write(store, rows)
    if kind == "cut":
        store.write_bytes(store.read_bytes()[:-30])
    run = tmp_path / "run"
    command = ["train", f"--data={data}", f"--out={run}", "--method=s5mars", f"--objects={store}"]
    command += ["--model=resnet10t", "--weights=none", "--crop=32", "--steps=2"]
    assert main([*command, "--batch=2", "--accelerator=cpu", "--devices=1"]) == 2
    error = capsys.readouterr().err
    assert re.search(rf"s\.parquet:? {said}", error) and error.count("\n") == 1
    assert not run.exists()


def write_json(folder: Path, data: Path, *, size: tuple[int, int]) -> None:
    """Masks of all train images, as JSON files of the authors."""
    store = folder.with_suffix(".parquet")
    write(store, [(name, [block(size=size)]) for name in names(data)])
    export_json(ObjectStore(store), folder)


def test_rejected_json_is_not_kept(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects, run = tmp_path / "json", tmp_path / "run"
    write_json(objects, data, size=(80, 96))
    command = [
        "train", f"--data={data}", f"--out={run}", "--method=s5mars", f"--objects={objects}",
        "--model=test_resnet", "--weights=none", "--crop=32", "--steps=1", "--batch=2",
        "--accelerator=cpu", "--devices=1", "--workers=0",
    ]  # fmt: skip
    rejected = rf"json: the masks of 6 of 6 images have another size .*, such as {names(data)[0]}"
    for words in (command, [*command, "--folds=2"]):
        assert main(words) == 2
        assert re.search(rejected, capsys.readouterr().err)
        assert not run.exists()
    good = next(objects.rglob("*.json"))
    good.write_text("[{}]")
    assert main(command) == 2
    assert "damaged mask 0" in capsys.readouterr().err and not run.exists()

    write_json(objects, data, size=SIZE)
    assert main(command) == 0
    assert ObjectStore(run / "objects.parquet").masks == 6
    assert not list(run.glob(".*"))


def test_an_import_is_replaced_if_it_does_not_fit(data: Path, tmp_path: Path) -> None:
    """Earlier versions left rejected imports in the folder of the run."""
    samples, objects, cache = open_dataset(data).split("train"), tmp_path / "json", tmp_path / "c"
    write_json(objects, data, size=(80, 96))
    with pytest.raises(UserError, match="json: the masks of 6 of 6 images"):
        object_store(objects, samples, cache=cache)
    assert not cache.with_suffix(".parquet").exists()
    import_json(objects, cache.with_suffix(".parquet"))
    with pytest.raises(UserError, match="json: the masks of 6 of 6 images"):
        object_store(objects, samples, cache=cache)
    write_json(objects, data, size=SIZE)
    store, found = object_store(objects, samples, cache=cache)
    assert (store.path, found.without) == (cache.with_suffix(".parquet"), 0)


def test_masks_of_other_images_are_not_imported(data: Path, tmp_path: Path) -> None:
    write(tmp_path / "s.parquet", [(name, [block(size=(80, 96))]) for name in names(data)])
    words = ["masks", str(tmp_path / "s.parquet"), "--export-json", str(tmp_path / "json")]
    assert main(words) == 0
    out = tmp_path / "out.parquet"
    words = ["masks", str(data), "--import-json", str(tmp_path / "json"), "--out", str(out)]
    assert main(words) == 2
    assert not out.exists()


def test_without_ray_no_folder_is_left(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "out"
    words = ["masks", str(data), "--out", str(out)]
    assert main([*words, "--engine", "ray"]) == 2
    assert "`pip install 's5mars[ray]'`" in capsys.readouterr().err
    assert main([*words, "--address", "auto"]) == 2
    assert "requires --engine ray" in capsys.readouterr().err
    assert not out.exists()


def test_an_empty_list_in_json_is_an_image_without_masks(data: Path, tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    sample = open_dataset(data).split("train")[0]
    (tmp_path / "json" / f"{sample.name}.json").write_text(json.dumps([]))
    store = import_json(tmp_path / "json", tmp_path / "s.parquet")
    assert coverage(store, [sample], filter=ObjectFilter()).empty == (sample.name,)


def test_a_hidden_shard_beside_json_is_no_store(data: Path, tmp_path: Path) -> None:
    objects = tmp_path / "json"
    objects.mkdir()
    (objects / "._0.parquet").write_bytes(b"\0\5\x16\7")
    sample = open_dataset(data).split("train")[0]
    (objects / f"{sample.name}.json").write_text(json.dumps([]))
    _, found = object_store(objects, [sample], cache=tmp_path / "cache")
    assert found.empty == (sample.name,)


def test_a_run_notes_what_got_rectangles(data: Path, tmp_path: Path) -> None:
    rows = [(name, [block()] if k else []) for k, name in enumerate(names(data))]
    write(tmp_path / "s.parquet", rows)
    run = tmp_path / "run"
    command = [
        "train", "--data", str(data), "--out", str(run), "--method", "s5mars",
        "--objects", str(tmp_path / "s.parquet"), "--steps", "2", "--batch", "2", "--crop", "32",
        "--model", "resnet10t", "--weights", "none", "--workers", "0", "--validate-every", "2",
        "--recipe", "paper",
    ]  # fmt: skip
    assert main(command) == 0
    notes = json.loads((run / "metrics.json").read_text())["notes"]
    assert any("1 of 6 images have no qualified object mask" in note["text"] for note in notes)


def test_the_loader_refuses_masks_of_another_size(data: Path, tmp_path: Path) -> None:
    from s5mars.data.crops import CropSettings
    from s5mars.training.loader import LoaderSettings, load_crop

    dataset = open_dataset(data)
    sample: Sample = dataset.split("train")[0]
    store = write(tmp_path / "s.parquet", [(sample.name, [block(size=(80, 96), side=30)])])
    settings = LoaderSettings(
        seed=0, batch=1, crop=CropSettings(size=32, scale=(1.0, 1.0)), coding=dataset.coding
    )
    with pytest.raises(
        ValueError, match=r"object masks have 96×80 pixels, but the image has 48×40"
    ):
        for seed in range(20):
            load_crop(sample, rng=np.random.default_rng(seed), settings=settings, objects=store)
