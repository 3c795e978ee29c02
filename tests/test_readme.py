"""The README's commands and Python lines run as they are written there, on tiny scenes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import s5mars
from s5mars.cli import main
from s5mars.data.synthetic import write_synthetic
from s5mars.training.signals import Ended

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    text = README.read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [block for found, block in fenced if found == language]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("readme") / "DATA", images=14, size=64)


@pytest.mark.usefixtures("cells_here", "navcam")
def test_commands(
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    # A fresh process is comparison/test_cost.py's.
    monkeypatch.setattr("s5mars.comparison.cost.peak_in_fresh_process", lambda *_: 2**20)
    lines = [line for block in blocks("") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("s5mars")]
    assert len(commands) == 20
    monkeypatch.setattr("s5mars.training.automatic.SECONDS", 0)
    monkeypatch.setattr("s5mars.training.automatic.FEWEST_STEPS", 2)
    smaller = {"600": "4", "6": "2", "192": "48", "IMAGE_OR_FOLDER": str(scenes / "images")}
    smaller |= {"DATA": str(scenes), "FOLDER": str(scenes), "ARCHIVE": str(scenes / "images")}
    # Its encoder, with the installed weights, is test_automatic.py's.
    encoder = "--model tf_efficientnet_lite0"
    fewer = {
        f"{encoder} --out": "--model test_resnet --weights none --out",
        f"{encoder} --crop": "--model test_resnet --crop",
        "--methods all": "--methods supervised s5mars",
        "--seeds 0 1 2": "--seeds 0",
        "--labelled 0.125 0.25": "--labelled 0.25",
        "s5mars cost": "s5mars cost --rounds 1",
        "train FOLDER": "train FOLDER --batch 2 --model test_resnet --weights none",
        "--folds 5": "--folds 2 --labelled 0.5",
    }
    for command in commands:
        for shown, run in fewer.items():
            command = command.replace(shown, run)
        words = [smaller.get(word, word) for word in shlex.split(command)[1:]]
        assert main(words) == 0, (command, capsys.readouterr().err)
    maps = [p for p in Path("maps").glob("*.png") if "confidence" not in p.name]
    assert len(maps) == 14
    assert len(list(Path("navcam_maps").glob("*_overlay.jpg"))) == 14
    assert Path("runs/a/report.html").stat().st_size > 10_000
    assert Path("maps/summary.csv").is_file()
    assert len(list(Path("results/x/figures").glob("*.png"))) == 4
    capsys.readouterr()
    assert main(["evaluate", "runs/a", "--data", str(scenes), "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {"mIoU", "mAcc", "pixel_accuracy", "classes", "protocol"} <= result.keys()

    code, more = blocks("python")
    image = np.asarray(Image.open(next((scenes / "images").iterdir())))
    names: dict[str, Any] = {"image": image}
    monkeypatch.setattr(Image.Image, "show", lambda _: None)
    exec(code.replace("path/to/folder", str(scenes)), names)
    assert names["run"].metrics["steps"] == 2
    assert names["page"].is_file()
    assert names["labels"].shape == image.shape[:2]
    assert names["probabilities"].shape == (9, *image.shape[:2])
    without_hub = [line for line in more.splitlines() if "hf:" not in line]
    assert len(without_hub) == 3
    for line in without_hub:
        exec(line, names | {"s5mars": s5mars})
    assert "s5mars.load" in Path("upload/README.md").read_text(encoding="utf-8")


def test_settings_of_the_readme_are_a_data_set(tmp_path: Path) -> None:
    from s5mars.data.layouts import open_dataset

    (yaml,) = blocks("yaml")
    for folder, mode in (("images", "RGB"), ("masks", "L")):
        (tmp_path / folder).mkdir()
        for number in range(10):
            ending = "jpg" if folder == "images" else "png"
            Image.new(mode, (8, 8)).save(tmp_path / folder / f"{number}.{ending}")
    (tmp_path / "dataset.yaml").write_text(yaml)
    assert open_dataset(tmp_path).taxonomy.names == ("soil", "sky")


def test_calls_of_the_python_page(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their settings are checked; test_api.py trains."""
    text = (README.parent / "docs" / "python.md").read_text(encoding="utf-8")
    (calls, _) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    seen: list[Any] = []

    def train(config: Any, method: Any, **_: Any) -> Ended:
        seen.append((config.network.decoder, method.mix.rotation))
        return Ended(scenes)

    monkeypatch.setattr("s5mars.training.run.train", train)
    monkeypatch.setattr("s5mars.api.Run", Path)
    monkeypatch.setattr("s5mars.api.Comparison", Path)
    monkeypatch.setattr("s5mars.comparison.runner.compare", seen.append)
    exec(calls.replace("DATA", str(scenes)), {"s5mars": s5mars})
    (used, request) = seen
    assert used == ("light", 0)
    assert (request.methods, request.seeds) == (["supervised", "s5mars"], [0, 1, 2])


def test_commands_of_the_backbones_page_are_understood() -> None:
    """Their encoders are too large to run here; every option is parsed and checked."""
    from s5mars.methods.supervised import Supervised
    from s5mars.models.build import check_network
    from s5mars.settings.parsing import parse_training

    text = (README.parent / "docs" / "backbones.md").read_text(encoding="utf-8")
    commands = [line for line in text.splitlines() if line.startswith("s5mars train ")]
    assert len(commands) == 3
    for command in commands:
        settings = parse_training(shlex.split(command)[2:])
        assert settings.config.model == "vit_small_patch14_dinov2"
        assert settings.config.crop % 14 == 0
        check_network(settings.config, Supervised())
