"""What a run takes from its labels before it trains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s5mars.classes import IGNORE
from s5mars.cli import main
from s5mars.data.layouts import open_dataset
from s5mars.errors import DamagedFileError
from s5mars.methods import METHODS
from s5mars.settings.config import TrainConfig
from s5mars.settings.parsing import training_from_yaml
from s5mars.training.streams import (
    choose_streams,
    no_alignment,
    recorded_streams,
    with_usable_alignment,
)

YAML = "classes: [{name: soil}, {name: rock}]\nignore: [255]\n"


def config_of(data: Path, **changes: object) -> TrainConfig:
    settings = {"alignment": 0.98, "alignment_coverage": 0.9, "crop": 32, "keep": "last"}
    return TrainConfig(data=data, out=data / "run", steps=4, **(settings | changes))  # type: ignore[arg-type]


def folder(root: Path, *, unlabelled_rows: int) -> Path:
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    (root / "dataset.yaml").write_text(YAML)
    for i in range(4):
        mask = np.zeros((64, 64), np.uint8)
        mask[:, 32:] = 1
        mask[:unlabelled_rows] = IGNORE
        Image.fromarray(np.full((64, 64, 3), 40 * i, np.uint8)).save(root / f"images/{i}.png")
        Image.fromarray(mask).save(root / f"masks/{i}.png")
    return root


@pytest.mark.parametrize(("rows", "aligned"), [(0, True), (32, False)])
def test_alignment_needs_labels_that_cover_the_crops(
    tmp_path: Path, rows: int, aligned: bool
) -> None:
    data = folder(tmp_path / "data", unlabelled_rows=rows)
    config, method = config_of(data), METHODS["s5mars"]()
    dataset = open_dataset(data)
    streams = choose_streams(dataset, config, method)
    # By symmetry half of the area of plain crops lies in the upper half of the images.
    assert streams.coverage == pytest.approx(1 - rows / 64)
    assert with_usable_alignment(config, streams).alignment == (0.98 if aligned else 0)
    # A resumed run decides in the same way.
    streams.write(config.out / "splits")
    again = recorded_streams(dataset, config.out, config, method)
    assert again.coverage == streams.coverage
    # Without the setting alignment is as it was asked for.
    assert with_usable_alignment(config_of(data, alignment_coverage=0.0), streams).alignment == 0.98


@pytest.mark.parametrize(
    ("method", "settings"),
    [("s5mars", {"alignment": 0.0}), ("s5mars", {"alignment_coverage": 0.0}), ("supervised", {})],
)
def test_nothing_is_switched_off_that_was_not_asked_for(
    tmp_path: Path, method: str, settings: dict[str, float]
) -> None:
    data = folder(tmp_path / "data", unlabelled_rows=32)
    config = config_of(data, **settings)
    streams = choose_streams(open_dataset(data), config, METHODS[method]())
    assert streams.coverage == 1 and with_usable_alignment(config, streams) == config
    assert not no_alignment(config, streams)


def test_a_run_says_that_alignment_is_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = folder(tmp_path / "data", unlabelled_rows=32), tmp_path / "run"
    options = {
        "out": out, "steps": 2, "batch": 2, "crop": 32, "model": "test_resnet", "weights": "none",
        "keep": "last", "workers": 0, "accelerator": "cpu", "s5mars.mix.source": "none",
        "alignment": 0.98,
    }  # fmt: skip
    assert main(["train", str(data), *(f"--{key}={value}" for key, value in options.items())]) == 0
    off = "off, because only 50 % of the pixels of the labelled crops have a label"
    assert f"alignment: {off}" in capsys.readouterr().err
    notes = json.loads((out / "metrics.json").read_text())["notes"]
    assert any(note["text"].startswith(f"Distribution alignment was {off}") for note in notes)
    # What was asked for stays in the settings, by which a comparison recognises its runs.
    assert training_from_yaml(out / "config.yaml").config.alignment == 0.98


def test_a_damaged_record_of_a_run_is_named(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", unlabelled_rows=0)
    dataset, config = open_dataset(data), config_of(data)
    method = METHODS["supervised"]()
    streams = choose_streams(dataset, config, method)
    streams.write(config.out / "splits")
    (config.out / "splits" / "skipped.txt").write_bytes(b"\xff\n")
    with pytest.raises(DamagedFileError, match=r"skipped\.txt"):
        recorded_streams(dataset, config.out, config, method)
