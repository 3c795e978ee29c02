"""The demo, made tiny: it renders, trains two methods, scores both, and leaves a page."""

from __future__ import annotations

import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from s5mars.cli import main
from s5mars.data.layouts import open_dataset
from s5mars.data.synthetic import write_synthetic
from s5mars.demo import DATA, demo_data
from s5mars.demo.run import DemoSettings, demo
from s5mars.errors import UserError
from s5mars.training.signals import Ended

TINY = DemoSettings(labelled=0.5, steps=2, batch=2, crop=48, seeds=(0,), images=14, size=64)


@pytest.mark.slow
def test_on_synthetic_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "demo" / "maps-s5mars").mkdir(parents=True)
    (tmp_path / "demo" / "maps-s5mars" / "old.png").touch()
    (tmp_path / "demo" / ".demo").touch()
    page = demo(tmp_path / "demo", synthetic=True, settings=TINY)
    said = capsys.readouterr().out
    assert page.is_file()
    assert "240 of 240 tensors matched" in (tmp_path / "demo/s5mars-0/best.json").read_text()
    last = said[said.index("mIoU on the test split") :].splitlines()
    assert [line.split()[0] for line in last[1:3]] == ["supervised", "s5mars"]
    assert "not evidence about images of Mars" in said
    assert str(page) in said
    assert list((tmp_path / "demo" / "maps-s5mars").rglob("*_overlay.jpg"))
    # It has replaced an earlier one, and another may replace it.
    assert not list(tmp_path.rglob("old.png"))
    assert (tmp_path / "demo" / ".demo").is_file()


def test_a_training_that_is_stopped_stops_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[object] = []

    def train(config: object, *_: object, **__: object) -> Ended:
        trained.append(config)
        return Ended(tmp_path, signal.SIGINT)

    monkeypatch.setattr("s5mars.training.run.train", train)
    with pytest.raises(KeyboardInterrupt, match="the same command begins the demo again"):
        demo(tmp_path / "demo", synthetic=True, settings=TINY)
    assert len(trained) == 1


def test_other_files_are_never_removed(tmp_path: Path) -> None:
    data = write_synthetic(tmp_path / "scenes", images=14, size=64)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear to me")
    with pytest.raises(ValueError, match="not a demo"):
        demo(tmp_path / "mine", data=data, settings=TINY)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "dear to me"
    (tmp_path / ".demo").touch()
    with pytest.raises(UserError, match=r"is inside --out .*, where an earlier demo is removed"):
        demo(tmp_path, data=data, settings=TINY)
    assert (data / "images").is_dir()


@pytest.mark.parametrize("option", ["--steps=0", "--labelled=1.5"])
def test_wrong_settings_end_before_an_earlier_demo_is_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    (tmp_path / ".demo").touch()
    assert main(["demo", option, f"--out={tmp_path}"]) == 2
    assert f"s5mars: {option.partition('=')[0]} must be" in capsys.readouterr().err
    assert (tmp_path / ".demo").is_file()


def test_wrong_data_end_before_an_earlier_demo_is_removed(tmp_path: Path) -> None:
    demo_data(tmp_path / "data")
    (tmp_path / "data/splits/test.txt").unlink()
    (tmp_path / "demo").mkdir()
    for file in (".demo", "report.html"):
        (tmp_path / "demo" / file).touch()
    for data in ("data", "dta"):
        with pytest.raises(UserError):
            demo(tmp_path / "demo", data=tmp_path / data, settings=TINY)
        assert (tmp_path / "demo/report.html").is_file()


def test_on_the_images_of_the_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s5mars.demo.run.EXAMPLES", 2)
    page = demo(tmp_path / "demo", settings=replace(TINY, resolution="1/4", labelled=0.25))
    said = capsys.readouterr().out
    assert page.is_file()
    assert len(list((tmp_path / "demo/maps-navcam").glob("*_overlay.jpg"))) == 2
    assert said.index("maps of the installed model navcam") < said.index("training supervised")
    assert "s5mars train YOUR_FOLDER" in said
    assert "2 steps and 20 test images are too few to rank the methods; docs/results.md" in said
    means = re.findall(r"^  (?:supervised|s5mars) +([\d.]+ % \([\d., ]+\))$", said, re.MULTILINE)
    shown = page.read_text()
    assert len(means) == 2 and all(mean in shown for mean in means)
    assert "shows seed 0. Mean mIoU of" in shown and "too few to rank the methods." in shown


def test_data_of_the_demo(tmp_path: Path) -> None:
    folder = demo_data(tmp_path / "navcam60")
    dataset = open_dataset(folder)
    numbers = {split: len(dataset.split(split)) for split in ("train", "val", "test")}
    assert numbers == {"train": 12, "val": 8, "test": 20}
    assert len(dataset.unlabelled) == 20
    places = {
        split: {sample.name.split("_F")[1][:7] for sample in dataset.split(split)}
        for split in numbers
    }
    assert not places["train"] & places["val"] and not places["train"] & places["test"]
    assert not places["val"] & places["test"]
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 3_000_000
    with pytest.raises(UserError, match="not empty"):
        demo_data(folder)


def test_own_data_or_scenes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exclude each other"):
        demo(tmp_path / "demo", data=tmp_path, synthetic=True)
