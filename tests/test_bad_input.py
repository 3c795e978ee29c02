"""Users' mistakes and broken files, through the real command line.

Each ends with exit code 2 and one line on standard error that names the file and the way out, and
leaves nothing half-written under a final name.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from PIL import Image

from apart import run_command
from products.written import pds3
from s5mars.cli import main

Edit = Callable[[Path], object]
Fails = Callable[..., str]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory, fake_data: ModuleType) -> Path:
    root: Path = fake_data.plain(
        tmp_path_factory.mktemp("data") / "scenes", size=(64, 64), rare=(0, 6)
    )
    return root


@pytest.fixture
def scenes(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may break: sol_000 to 005 train, 006 to 008 val, 009 to 011 test."""
    return Path(shutil.copytree(pristine, tmp_path / "scenes"))


def train(data: Path, out: Path, *more: str) -> list[str]:
    return [
        "train", f"--data={data}", f"--out={out}", "--method=supervised", "--steps=2", "--batch=2",
        "--crop=32", "--model=test_resnet", "--weights=none", "--workers=0",
        "--validate-every=2", "--accelerator=cpu", "--devices=1", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "a"
    assert main(train(pristine, out)) == 0
    return out


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may break."""
    return Path(shutil.copytree(run, tmp_path / "copied"))


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must fail as it should; gives its one line."""

    def command(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        lines = [line for line in re.split(r"[\r\n]", capsys.readouterr().err) if line.strip()]
        said = [line for line in lines if not _is_progress(line)]
        assert len(said) == 1, said
        assert said[0].startswith("s5mars: ")
        assert "Errno" not in said[0]
        return said[0].removeprefix("s5mars: ")

    return command


def _is_progress(line: str) -> bool:
    return bool(
        re.search(
            r"[%?]\|? *\||\?it/s\]|^(run|network|encoder weights|classes|images|pool|steps): |"
            r"^class biases: |^chosen automatically:|^  --|^step \d+ of |"
            r"^warning: The run uses |^Training: ",
            line,
        )
    )


def truncate(path: Path, *, keep: int = 700) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def relabel(path: Path, ids: dict[int, int]) -> None:
    """Write so many pixels of each id into the rows of a mask."""
    mask = np.array(Image.open(path))
    for row, (value, count) in enumerate(ids.items()):
        mask[row, :count] = value
    Image.fromarray(mask).save(path)


def shrink(path: Path) -> None:
    Image.open(path).resize((32, 32), Image.Resampling.NEAREST).save(path)


def unlabel(root: Path) -> None:
    for mask in (root / "masks").iterdir():
        Image.fromarray(np.full((64, 64), 255, np.uint8)).save(mask)


# folders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["train", "split", "stats"])
def test_no_data(command: str, tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    for folder in ("flat", "deep/images"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / folder / "a.png")
    out = tmp_path / "out"
    for name, said in (
        ("nowhere", r"nowhere: no such folder"),
        ("empty", r"empty: the folder is empty"),
        ("notes", r"notes has no known layout; found a\.txt; known layouts: .*images/ and masks/"),
        (
            "flat",
            r"flat has no known layout; it holds images without masks: .*`s5mars label \S*flat",
        ),
        ("deep", r"deep has no known layout; it holds images without masks: .*`s5mars predict"),
    ):
        data = tmp_path / name
        arguments = train(data, out) if command == "train" else [command, data, "--out", out]
        assert re.search(said, fails(*arguments))
        assert not out.exists()


@pytest.mark.parametrize("command", ["split", "stats"])
def test_out_is_a_file(command: str, scenes: Path, tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "out").write_text("mine")
    assert "out exists and is a file" in fails(command, scenes, "--out", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_no_image_to_predict(run: Path, tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    assert "contains no image" in fails("predict", run, tmp_path / "empty", "--out", out)
    assert "does not exist" in fails("predict", run, tmp_path / "no.jpg", "--out", out)
    assert not out.exists()


# images, masks, lists --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda d: (d / "masks/sol_001.png").unlink(), r"sol_001\.jpg.* has no mask: add the mask"),
        (lambda d: (d / "masks/sol_006.png").unlink(), r"sol_006\.jpg.* has no mask.*: add one"),
        (lambda d: shrink(d / "masks/sol_001.png"), r"sol_001\.jpg: 64×64 .*32×32: resize"),
        (lambda d: shrink(d / "masks/sol_006.png"), r"sol_006\.jpg: 64×64 .*32×32: resize"),
        (
            lambda d: relabel(d / "masks/sol_001.png", {42: 7, 99: 2}),
            r"sol_001\.png: unknown mask ids 42 \(7 pixels\), 99 \(2 pixels\): .*`ignore`",
        ),
        (
            lambda d: relabel(d / "masks/sol_007.png", {42: 7}),
            r"sol_007\.png: unknown mask ids 42 \(7 pixels\)",
        ),
        (
            lambda d: (d / "splits/train.txt").write_text("sol_000\nsol_0001\nno\n"),
            r"train\.txt lists 2 unknown files: sol_0001, no: .*did you mean 'sol_001'",
        ),
        (lambda d: (d / "splits/train.txt").write_text(""), r"train\.txt is empty"),
        (lambda d: truncate(d / "images/sol_001.jpg"), r"sol_001\.jpg: damaged .*--skip-bad"),
        (lambda d: truncate(d / "images/sol_006.jpg"), r"sol_006\.jpg: damaged .*--skip-bad"),
        (lambda d: truncate(d / "masks/sol_001.png", keep=60), r"sol_001\.png: .*--skip-bad"),
        (
            lambda d: (d / "images/sol_001.jpg").write_text("hello"),
            r"sol_001\.jpg is not an image: replace it.*--skip-bad",
        ),
        (unlabel, r"scenes: no mask of the 6 train images has a labelled pixel: label some"),
        (lambda d: (d / "dataset.yaml").unlink(), r"dataset\.yaml is missing: .*classes"),
        (
            lambda d: (d / "dataset.yaml").write_text("classes: ["),
            r"dataset\.yaml: damaged YAML",
        ),
    ],
)
def test_train_refuses_bad_data_before_it_starts(
    damage: Edit, said: str, scenes: Path, tmp_path: Path, fails: Fails
) -> None:
    damage(scenes)
    out = tmp_path / "out"
    assert re.search(said, fails(*train(scenes, out)))
    assert not out.exists()


@pytest.mark.parametrize("command", ["evaluate", "stats"])
def test_damage_in_the_test_split(
    command: str, run: Path, scenes: Path, tmp_path: Path, fails: Fails
) -> None:
    arguments = {
        "evaluate": ("evaluate", run, "--data", scenes),
        "stats": ("stats", scenes, "--split", "test", "--out", tmp_path / "out"),
    }[command]
    before = sorted(run.iterdir())
    relabel(scenes / "masks" / "sol_010.png", {42: 3})
    assert "42 (3 pixels)" in fails(*arguments)
    truncate(scenes / "images" / "sol_010.jpg")
    assert "sol_010.jpg: damaged image" in fails(*arguments)
    assert sorted(run.iterdir()) == before
    assert not (tmp_path / "out").exists()


def test_skip_bad_counts_what_it_left_out(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truncate(scenes / "images" / "sol_001.jpg")
    truncate(scenes / "masks" / "sol_002.png", keep=60)
    (scenes / "images" / "sol_006.jpg").write_text("hello")
    truncate(scenes / "unlabelled" / "later_001.jpg")
    out = tmp_path / "out"
    assert main([*train(scenes, out, "--skip-bad"), "--method=s5mars"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["skipped_files"] == 4
    assert metrics["train_images"] == 6
    assert metrics["labelled_images"] == 4
    assert metrics["selection_images"] == 2
    assert metrics["pool_images"] == 6 + 3 - 2  # the image of the broken mask is a good image
    assert "4 unreadable files" in " ".join(note["text"] for note in metrics["notes"])
    assert len((out / "splits" / "skipped.txt").read_text().splitlines()) == 4


def test_skip_bad_skips_no_mistakes(scenes: Path, tmp_path: Path, fails: Fails) -> None:
    shrink(scenes / "masks" / "sol_001.png")
    assert "32×32" in fails(*train(scenes, tmp_path / "out", "--skip-bad"))


def test_skip_bad_needs_something_good(scenes: Path, tmp_path: Path, fails: Fails) -> None:
    for name in ("sol_006", "sol_007", "sol_008"):
        truncate(scenes / "images" / f"{name}.jpg")
    assert "no readable val image is left" in fails(*train(scenes, tmp_path / "out", "--skip-bad"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_in_the_pool_is_one_line_whoever_reads_it(
    workers: int, scenes: Path, tmp_path: Path, fails: Fails
) -> None:
    for path in (scenes / "unlabelled").iterdir():
        truncate(path)
    more = ("--method=s5mars", "--steps=12", "--validate-every=12", f"--workers={workers}")
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert re.search(
        r"^\S*unlabelled/later_00\d\.jpg: damaged image .*: replace it, or leave it out with "
        r"--skip-bad; nothing was saved yet; resume with: s5mars train --resume \S*out "
        r"\[--skip-bad\]$",
        fails(*train(scenes, tmp_path / "out", *more)),
    )
    # A process that ignores SIGTERM after an error cannot be stopped, nor can its children.
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_damage_in_the_pool_has_ended_goes_on(
    workers: int,
    scenes: Path,
    tmp_path: Path,
    fails: Fails,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After the file is replaced, after it is removed, and with --skip-bad."""
    more = ("--method=fixmatch", "--warm-up=0", "--epochs=2", "--batch=2", "--save-every=1")
    more = (*more, f"--workers={workers}", "--seed=1")
    without_steps = [word for word in train(scenes, tmp_path, *more) if word != "--steps=2"]

    def command(out: Path) -> list[str]:
        return [f"--out={out}" if word == f"--out={tmp_path}" else word for word in without_steps]

    def weights(out: Path) -> dict[str, torch.Tensor]:
        state = torch.load(out / "last.ckpt", weights_only=True)
        assert state["global_step"] == 9
        return dict(state["state_dict"])

    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main(command(whole)) == 0
    image = scenes / "unlabelled" / "later_001.jpg"
    content = image.read_bytes()
    truncate(image)
    said = fails(*command(out))
    assert re.search(
        r"later_001\.jpg: damaged image .*: replace it, or leave it out with --skip-bad; "
        rf"step \d is saved; resume with: s5mars train --resume {out} \[--skip-bad\]$",
        said,
    )
    assert said == fails("train", "--resume", out)

    skipped = shutil.copytree(out, tmp_path / "skipped")
    assert main(["train", "--resume", str(skipped), "--skip-bad"]) == 0
    metrics = json.loads((skipped / "metrics.json").read_text())
    assert (metrics["skipped_files"], metrics["pool_images"], metrics["steps"]) == (1, 8, 9)

    image.unlink()
    removed = shutil.copytree(out, tmp_path / "removed")
    caplog.clear()
    assert main(["train", "--resume", str(removed)]) == 0
    warning = "Removed since the run began: 1 of the 9 images of the pool"
    assert warning in caplog.text
    metrics = json.loads((removed / "metrics.json").read_text())
    assert (metrics["pool_images"], metrics["steps"]) == (8, 9)
    assert any(warning in note["text"] for note in metrics["notes"])

    image.write_bytes(content)
    assert main(["train", "--resume", str(out)]) == 0
    expected, found = weights(whole), weights(out)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_folds_that_damage_in_the_pool_has_ended_go_on(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(scenes / "splits")
    out = tmp_path / "out"
    truncate(scenes / "unlabelled" / "later_001.jpg")
    words = ("--method=fixmatch", "--warm-up=0", "--folds=2", "--steps=4", "--pool=unlabelled")
    assert main(train(scenes, out, *words)) == 2
    assert f"resume with: s5mars train --resume {out} [--skip-bad]\n" in capsys.readouterr().err
    assert main(["train", "--resume", str(out), "--skip-bad"]) == 0
    assert "skip_bad: true\n" in (out / "config.yaml").read_text()
    assert (out / "folds.json").is_file()


def test_a_run_without_any_image_of_its_pool_does_not_go_on(
    scenes: Path, tmp_path: Path, fails: Fails
) -> None:
    out = tmp_path / "out"
    words = ("--method=fixmatch", "--pool=unlabelled", "--warm-up=0", "--steps=4")
    for path in (scenes / "unlabelled").iterdir():
        truncate(path)
    assert "resume with" in fails(*train(scenes, out, *words))
    assert "no readable image of the pool is left" in fails("train", "--resume", out, "--skip-bad")
    for path in (scenes / "unlabelled").iterdir():
        path.rename(path.with_stem(f"x_{path.stem}"))
    assert "no readable image of the pool is left" in fails("train", "--resume", out)


def test_a_labelled_image_that_is_damaged_later_cannot_be_skipped(
    scenes: Path, tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s5mars.training.record import Record

    score = Record.score

    def score_and_damage(self: Record, module: Any, **others: Any) -> None:
        score(self, module, **others)
        for path in (scenes / "images").iterdir():
            truncate(path)

    monkeypatch.setattr(Record, "score", score_and_damage)
    words = ("--method=fixmatch", "--steps=9", "--validate-every=2", "--save-every=1")
    assert re.search(
        r"sol_00\d\.jpg: damaged image .*: replace it; step 2 is saved; resume with: "
        r"s5mars train --resume \S*out$",
        fails(*train(scenes, tmp_path / "out", *words)),
    )


# too few labels --------------------------------------------------------------------------------


def test_what_is_logged_is_a_warning_before_the_line_of_the_error(
    tmp_path: Path, fake_data: ModuleType
) -> None:
    """In a process of its own, as pytest sets up logging."""
    root = fake_data.plain(tmp_path / "data", images=3)
    image = next((root / "images").iterdir())
    image.unlink()
    os.mkfifo(image)
    done = run_command(["stats", str(root), "--out", str(tmp_path / "out")], tmp_path)
    *warnings, last = done.err.splitlines()
    assert done.code == 2 and last.startswith("s5mars: ")
    assert warnings and all(line.startswith("warning: ") for line in warnings)
    assert len(set(warnings)) == len(warnings)


def test_no_labelled_image(scenes: Path, tmp_path: Path, fails: Fails) -> None:
    listed = tmp_path / "none.txt"
    listed.write_text("# nothing yet\n")
    arguments = train(scenes, tmp_path / "out", f"--labelled={listed}")
    assert fails(*arguments) == f"{listed} is empty: list at least one image"
    unlabel(scenes)
    listed.write_text("sol_000\n")
    assert "has no labelled pixel: choose" in fails(*arguments)
    assert not (tmp_path / "out").exists()


def test_too_few_labels_are_told_and_noted(
    scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mask = scenes / "masks" / "sol_000.png"
    ids = np.array(Image.open(mask))
    Image.fromarray(np.where(ids == 7, 255, ids).astype(np.uint8)).save(mask)
    listed = tmp_path / "one.txt"
    listed.write_text("sol_000\n")
    out = tmp_path / "out"
    assert main(train(scenes, out, f"--labelled={listed}")) == 0
    notes = json.loads((out / "metrics.json").read_text())["notes"]
    texts = [note["text"] for note in notes]
    assert caplog.messages == texts
    assert "There is one labelled image: " in texts[0]
    assert "No labelled pixel of sky among the labelled images (1): " in texts[1]
    assert "learn this class, which counts as 0 in the mIoU if the scored split has it" in texts[1]
    assert "The batch of 2 is larger than the number of labelled images (1): " in texts[2]

    # A resumed run says the same of its scores.
    (out / "metrics.json").unlink()
    assert main(["train", "--resume", str(out)]) == 0
    assert json.loads((out / "metrics.json").read_text())["notes"] == notes


def test_enough_labels_are_not_talked_about(run: Path) -> None:
    assert json.loads((run / "metrics.json").read_text())["notes"] == []


def test_damaged_masks_are_skipped_also_where_the_lists_are_made(
    scenes: Path, tmp_path: Path, fails: Fails
) -> None:
    shutil.rmtree(scenes / "splits")
    for name in ("sol_001", "sol_006", "sol_010"):
        truncate(scenes / f"masks/{name}.png", keep=60)
    assert main(train(scenes, tmp_path / "out", "--skip-bad", "--crop=64")) == 0
    notes = json.loads((tmp_path / "out/metrics.json").read_text())["notes"]
    warnings = [note["text"] for note in notes if note["kind"] == "warning"]
    assert any("unreadable files were skipped" in text for text in warnings)
    assert re.search(r"sol_0\d\d\.png: damaged image", fails(*train(scenes, tmp_path / "b")))
    assert not (tmp_path / "b").exists()


def test_predict_with_damaged_images(
    run: Path, scenes: Path, tmp_path: Path, fails: Fails, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = scenes / "images", tmp_path / "maps"
    truncate(images / "sol_000.jpg")
    arguments = ["predict", str(run), str(images), "--out", str(out), "--write", "labels"]
    said = fails(*arguments)
    assert "11 done, 1 failed, 0 to do" in said
    assert "sol_000.jpg: damaged image" in said
    assert main([*arguments, "--skip-bad"]) == 0
    said = capsys.readouterr().out
    assert f"{out / 'index.parquet'}: 11 done, 1 failed, 0 to do; first failure: " in said
    assert "sol_000.jpg" in said
    kept = {"index.parquet", "manifest.sqlite", "summary.csv"}
    assert {path.name for path in out.iterdir() if path.suffix != ".png"} == kept
    assert len(list(out.glob("*.png"))) == 11
    for path in images.iterdir():
        path.write_text("hello")
    assert "no product could be predicted (12 failed)" in fails(*arguments, "--skip-bad")


def test_an_archive_of_bad_products(run: Path, tmp_path: Path, fails: Fails) -> None:
    """Whatever is wrong with a product is a row of the manifest, in one line, and costs it only."""
    pytest.importorskip("pdr")
    folder, out = tmp_path / "in", tmp_path / "maps"
    folder.mkdir()
    colour = np.random.default_rng(0).integers(1, 255, (40, 50, 3)).astype(np.uint8)
    ramp = np.linspace(1, 4095, 600).astype(np.uint16).reshape(20, 30)
    Image.fromarray(colour).save(folder / "good.png")
    for name in ("empty1.png", "empty2.tif", "empty.IMG", "empty.xml"):
        (folder / name).touch()
    for name in ("cut.jpg", "cut.tif", "evil\nname.png"):
        Image.fromarray(colour).save(folder / name)
        truncate(folder / name)
    (folder / "link.png").symlink_to("nowhere.png")
    tifffile.imwrite(folder / "nan.tif", np.full((40, 50), np.nan, np.float32))
    tifffile.imwrite(
        folder / "ten.tif", np.zeros((40, 50, 10), np.uint8), photometric="minisblack",
        planarconfig="contig",
    )  # fmt: skip
    side = 100_000
    head = struct.pack("<2sIHHIIiiHHII", b"BM", 54, 0, 0, 54, 40, side, side, 1, 24, 0, 0)
    (folder / "huge1.bmp").write_bytes(head + bytes(116))
    pds3(folder / "huge.IMG", np.zeros((2, 40_000), np.uint8), lines=side)
    pds3(folder / "short.IMG", ramp.astype(">u2"), declared=">u2", lines=400)
    bits = "SAMPLE_BIT_MASK = 2#0000111111111111#"
    pds3(folder / "swapped.IMG", ramp.astype("<i2"), declared=">i2", image=bits)
    pds3(folder / "gone.IMG", ramp.astype(">u2"), declared=">u2", detached=True).unlink()
    said = {
        "empty": "is empty (0 bytes): replace it", "cut": "damaged image (",
        "evil name.png": "damaged image (", "link": "no such file", "nan": "has no valid pixel",
        "ten": "10 channels, but 1 or 3 are needed", "huge": "more than the limit of 178,956,970",
        "short": "3,248 bytes, but its label declares 26,048", "swapped": "the byte order in the",
        "gone": "its label names gone.IMG, which is missing",
    }  # fmt: skip

    arguments = ("predict", run, folder, "--out", out, "--write", "labels")
    assert "1 done, 14 failed, 0 to do" in fails(*arguments)
    rows = {row["image"]: row for row in pq.read_table(out / "index.parquet").to_pylist()}
    assert [name for name, row in rows.items() if row["status"] == "done"] == ["good.png"]
    for name, row in rows.items():
        if row["status"] == "failed":
            (expected,) = [text for start, text in said.items() if _one(name).startswith(start)]
            assert expected in row["reason"] and _one(name).partition(".")[0] in row["reason"]
            assert "\n" not in row["reason"]
    kept = {"good.png", "index.parquet", "manifest.sqlite", "summary.csv"}
    assert {path.name for path in out.rglob("*")} == kept


def _one(name: str) -> str:
    return " ".join(name.splitlines())


def test_predict_does_not_overwrite_images(run: Path, scenes: Path, fails: Fails) -> None:
    images = scenes / "images"
    assert "choose another folder" in fails("predict", run, images, "--out", images)


# options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["--labelled=0"],
            r"--labelled must be a fraction in \(0, 1\] or a list file \(got 0\.0\)",
        ),
        (
            ["--labelled=1.5"],
            r"--labelled must be a fraction in \(0, 1\] or a list file \(got 1\.5\)",
        ),
        (["--labelled=no.txt"], r"such as 0\.125 or an existing list file \(got no\.txt\)"),
        (["--stepz=3"], r"unknown option --stepz; did you mean '--steps'"),
        (["--method=s5marz"], r"unknown method 's5marz'; nearest first: s5mars, "),
        (["--recipe=papr"], r"unknown recipe 'papr'; nearest first: paper"),
        (["--model=resnet5o"], r"--model resnet5o is not an encoder of timm; nearest: resnet50"),
        (["--weights=no.pth"], r"weights file no\.pth does not exist"),
        (["--deeplab.decoder=ligth"], r"deeplab\.decoder is 'ligth': expected .*'light'"),
        (["--select-on=vla"], r"no split 'vla', .*did you mean 'val'"),
        (["--precision=fp17"], r"precision is 'fp17': expected"),
        (
            ["--method=s5mars", "--objects=no.parquet"],
            r"no\.parquet does not exist: leave out --objects",
        ),
        (
            ["--objects=no.parquet"],
            r"^--objects is for methods that paste objects, not for supervised: leave it out$",
        ),
        (
            ["--method=fixmatch", "--object-cache=no"],
            r"^--object-cache is for methods that paste objects, not for fixmatch: leave it out$",
        ),
        (
            ["--pool=no.txt"],
            r"^--pool is for methods that use a pool, not for supervised: leave it out$",
        ),
        (
            ["--thresholds=flexmatch"],
            r"^--thresholds is for methods that use a pool, not for supervised: leave it out$",
        ),
        (
            ["--method=fixmatch", "--teacher-momentum=0.9"],
            r"^--teacher-momentum is for methods that have a moving average, not for fixmatch",
        ),
        (["--accelerator=gpux"], r"cannot train with accelerator gpux.*; omit these options"),
        (["--strategy=foo"], r"cannot train with .*strategy foo"),
        (["--strategy=ddp_fork", "--devices=2"], r"cannot train with .*only strategies of the"),
        (["--devices=x"], r"cannot train with .*devices x"),
        (
            ["--precision=fp16", "--accelerator=cpu"],
            r"^--precision fp16 needs a GPU; use fp32 or bf16 on a CPU$",
        ),
        (
            ["--devices=2", "--batch=3"],
            r"--batch must be a multiple of 2, the number of processes \(got 3\)",
        ),
        (
            ["--batch=1"],
            r"--batch must be at least 2 \(got 1\): batch normalisation and mixing need two images",
        ),
        (["--batch=0"], r"--batch must be above 0 \(got 0\)"),
        (["--crop=16"], r"--crop must be at least 32 pixels \(got 16\)"),
        (["--crop=129"], r"--crop must be at most 128 \(got 129\): .* 64×64 pixels "),
    ],
)
def test_train_refuses_settings_before_it_starts(
    more: list[str], said: str, pristine: Path, tmp_path: Path, fails: Fails
) -> None:
    out = tmp_path / "out"
    assert re.search(said, fails(*train(pristine, out, *more)))
    assert not out.exists()


def test_a_misspelt_command(fails: Fails) -> None:
    assert "unknown command 'trian'; nearest: train" in fails("trian")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--split", "tset"], "no split 'tset', only train, val, test; did you mean 'test'?"),
        (["--protocol", "papr"], "choose from"),
        (["--widnow", "64"], "unknown option --widnow; did you mean '--window'"),
        (["--window", "8"], "window must be at least 32 pixels (got 8)"),
        (["--overlap", "1"], "overlap must be in [0, 0.9] (got 1.0)"),
        (["--batch", "0"], "batch must be at least 1 (got 0)"),
        (["--merge", "soil+sand"], "(got 'soil+sand': unknown class 'sand')"),
        (["--device", "warp"], "device must be auto, cpu, cuda or mps (got 'warp')"),
    ],
)
def test_evaluate_refuses_settings(
    more: list[str], said: str, run: Path, pristine: Path, fails: Fails
) -> None:
    assert said in fails("evaluate", run, "--data", pristine, *more)


def test_a_window_larger_than_the_image_is_the_image(
    run: Path, pristine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(run), "--data", str(pristine), "--json", "--window"]
    scores = []
    for window in ("64", "100000"):
        assert main([*command, window, "--merge", "soil+bedrock"]) == 0
        scores.append(json.loads(capsys.readouterr().out)["confusion"])
    assert scores[0] == scores[1]
    assert len(scores[0]) == 2


# checkpoints and runs --------------------------------------------------------------------------


def _edit_json(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda r: truncate(r / "best.safetensors", keep=9000), r"best\.safetensors: damaged"),
        (lambda r: (r / "best.json").write_text("{"), r"best\.json: damaged"),
        (lambda r: (r / "best.json").unlink(), r"best\.json is missing; .* copy both"),
        (lambda r: (r / "best.safetensors").unlink(), r"contains no best\.safetensors"),
        (lambda r: _edit_json(r / "best.json", lambda f: f.update(format=9)), r"format 9"),
        (
            lambda r: _edit_json(r / "best.json", lambda f: f["model"].update(encoder=5)),
            r"does not fit the network .*copy both files again",
        ),
        (
            lambda r: _edit_json(r / "best.json", lambda f: f["taxonomy"]["classes"].pop()),
            r"best\.json",
        ),
    ],
)
def test_damaged_checkpoints(
    damage: Edit, said: str, copied: Path, pristine: Path, tmp_path: Path, fails: Fails
) -> None:
    damage(copied)
    out = tmp_path / "maps"
    assert re.search(said, fails("predict", copied, pristine / "images", "--out", out))
    assert not out.exists()


def test_a_checkpoint_of_other_classes(run: Path, scenes: Path, fails: Fails) -> None:
    description = scenes / "dataset.yaml"
    description.write_text(description.read_text().replace("name: sky", "name: water"))
    said = fails("evaluate", run, "--data", scenes)
    assert "has the classes soil, bedrock, water, but" in said
    assert "was trained on soil, bedrock, sky" in said


def test_a_folder_of_another_run(run: Path, pristine: Path, tmp_path: Path, fails: Fails) -> None:
    before = sorted(run.rglob("*"))
    assert f"{run} has a finished run: choose another --out" in fails(*train(pristine, run))
    assert sorted(run.rglob("*")) == before
    part = Path(shutil.copytree(run, tmp_path / "a part"))
    (part / "metrics.json").unlink()
    assert f"resume it with `s5mars train --resume '{part}'`" in fails(*train(pristine, part))
    shutil.rmtree(part)
    (tmp_path / "mine.txt").write_text("mine")
    assert "is not empty: choose another --out" in fails(*train(pristine, tmp_path))


def test_what_is_no_run(tmp_path: Path, pristine: Path, fails: Fails) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        run = tmp_path / name
        assert "is not a training run" in fails("train", "--resume", run)
        assert str(run) in fails("evaluate", run, "--data", pristine)
        assert str(run) in fails("report", run)


def test_a_finished_run_is_finished(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert main(["train", "--resume", str(run)]) == 0
    assert f"{run} is finished; next: s5mars evaluate" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


def _change_setting(run: Path, old: str, new: str) -> None:
    path = run / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda r: _change_setting(r, "data: ", "data: /gone"),
            r"copied was trained on /gone.*does not exist: give the folder with --data",
        ),
        (
            lambda r: truncate(r / "last.ckpt", keep=5000),
            r"last\.ckpt is damaged .*: copy it again",
        ),
        (
            lambda r: ((r / "last.ckpt").unlink(), (r / "last.ckpt").mkdir()),
            r"last\.ckpt is a folder",
        ),
        (
            lambda r: ((r / "last.ckpt").unlink(), os.mkfifo(r / "last.ckpt")),
            r"last\.ckpt is a named pipe",
        ),
        (lambda r: (r / "splits/labelled.txt").unlink(), r"labelled\.txt is missing"),
        (
            lambda r: (r / "splits/labelled.txt").write_text("sol_999\n"),
            r"scenes has no image named 'sol_999'",
        ),
        (lambda r: (r / "config.yaml").write_text("foo: 1\n"), r"config\.yaml: unknown key 'foo'"),
        (
            lambda r: _change_setting(r, "output_stride: 16", "output_stride: 16\n  decodr: 1"),
            r"config\.yaml: unknown key 'deeplab\.decodr'.*deeplab\.decoder",
        ),
        (
            lambda r: _change_setting(r, "decoder: auto", "decoder: paper"),
            r"last\.ckpt does not fit the network",
        ),
    ],
)
def test_what_a_stopped_run_may_have_lost(
    damage: Edit, said: str, copied: Path, fails: Fails
) -> None:
    _edit_json(copied / "metrics.json", lambda m: m.update(steps=1))
    damage(copied)
    assert re.search(said, fails("train", "--resume", copied))


# a full disk -----------------------------------------------------------------------------------


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file can be flushed to the disk any more, and no picture of a scene be written."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(Path, "write_bytes", full)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize(
    "command",
    [
        ("synth", "OUT", "--images", "3", "--size", "64"),
        ("split", "DATA", "--out", "OUT"),
        ("stats", "DATA", "--out", "OUT"),
        ("predict", "RUN", "DATA/images/sol_000.jpg", "--out", "OUT"),
        ("report", "COPY", "--out", "OUT/report.html"),
        tuple(train(Path("DATA"), Path("OUT"))),
    ],
    ids=lambda command: command[0],
)
def test_a_full_disk(
    command: tuple[str, ...], run: Path, pristine: Path, tmp_path: Path, fails: Fails
) -> None:
    out = tmp_path / "out"
    names = {"DATA": pristine, "COPY": run, "RUN": run, "OUT": out}
    arguments = [re.sub("DATA|COPY|RUN|OUT", lambda m: str(names[m[0]]), a) for a in command]
    said = fails(*arguments)
    assert re.search(r"the disk is full and .* was not written: free some space", said)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert left == (["manifest.sqlite"] if command[0] == "predict" else [])
