"""From a run to a file, and the file in the place of the run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import s5mars
from s5mars.cli import main
from s5mars.data.resolution import FULL
from s5mars.errors import DamagedFileError, UserError
from s5mars.export.command import LEAST_EQUAL, _read, export
from ties import assert_same_labels

from .networks import picture, run

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(3):
        Image.fromarray(picture(seed, 72, 80)).save(folder / f"{seed}.png")
    return folder


def test_predict_with_the_file_is_predict_with_the_run(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path / "run", temperature=1.5)
    file = tmp_path / "out" / "model.onnx"
    assert main(["export", str(folder), "--out", str(file), "--images", str(images)]) == 0
    printed = capsys.readouterr().out
    said = re.search(r"([\d.]+) % of 17,280 pixels of 3 images have the same class", printed)
    assert said is not None and float(said[1]) > 99.99  # one pixel may be a tie
    image = picture(7, 150, 130)
    for settings in ({}, {"window": 64}, {"window": 64, "tta": True}):
        ours, theirs = s5mars.load(folder, **settings), s5mars.load(file, **settings)
        assert theirs.temperature == ours.temperature == 1.5
        assert theirs.taxonomy == ours.taxonomy
        expected, probabilities = ours.predict(image, probabilities=True)
        found, other = theirs.predict(image, probabilities=True)
        assert_same_labels(found, expected, probabilities)
        np.testing.assert_allclose(other, probabilities, atol=0.02)
    assert b"/some/where" not in file.read_bytes()
    maps = tmp_path / "maps"
    assert main(["predict", str(file), str(images), "--out", str(maps)]) == 0
    assert len(list(maps.glob("*_confidence.png"))) == 3


def test_the_script_of_the_docs_resizes_as_predict_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path / "run", resolution="64")
    image = picture(7, 150, 130)
    Image.fromarray(image).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    images = ["--images", str(tmp_path)]
    assert main(["export", str(folder), "--out", "model.onnx", *images]) == 0
    said = capsys.readouterr().out
    assert re.search(r"100\.0000 % of 3,520 pixels", said)  # 64 × 55
    assert "expects images at resolution 64" in said
    page = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
    (script,) = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    scope: dict[str, Any] = {}
    exec(script, scope)
    assert scope["labels"].shape == (64, 55)
    _, expected = s5mars.load(folder).predict(image, probabilities=True)
    _, whole = s5mars.load(run(tmp_path / "full")).predict(image, probabilities=True)
    found = torch.from_numpy(scope["probabilities"])
    found = F.interpolate(found, image.shape[:2], mode="bilinear", align_corners=False)[0].numpy()
    assert np.abs(found - expected).max() < 0.02 < np.abs(found - whole).max()


def test_evaluating_the_file_leaves_the_scores_of_the_run_alone(
    tmp_path: Path, fake_data: ModuleType
) -> None:
    from s5mars.classes import Class, Taxonomy

    data = fake_data.plain(tmp_path / "data")
    folder = run(tmp_path / "run", data=str(data))
    facts = json.loads((folder / "best.json").read_text())
    names = ("soil", "bedrock", "sky")
    facts["taxonomy"] = Taxonomy("fake", tuple(Class(n, (0, 0, 0)) for n in names)).to_dict()
    (folder / "best.json").write_text(json.dumps(facts))
    assert main(["evaluate", str(folder), "--data", str(data)]) == 0
    file = export(folder)["file"]
    assert main(["evaluate", file, "--data", str(data)]) == 0
    scores = [
        json.loads((folder / f"{start}evaluation-test-full.json").read_text())
        for start in ("", "model.")
    ]
    one, other = (np.array(score["confusion"]) for score in scores)
    assert np.array_equal(one.sum(1), other.sum(1))
    assert np.abs(one - other).sum() <= 2  # one pixel, in two places, may be a tie
    assert scores[1]["protocol"]["network"] == "teacher"


def test_eight_bits_need_images_and_say_how_far_they_are(
    tmp_path: Path,
    images: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = run(tmp_path / "run")
    with pytest.raises(ValueError, match="with --images"):
        export(folder, int8=True)
    monkeypatch.setitem(LEAST_EQUAL, "int8", 0.999)
    found = export(folder, int8=True, images=images)
    assert found["file"].endswith("run/model.int8.onnx") and found["parity"]["equal"] > 0.6
    other = round(100 * (1 - found["parity"]["equal"]))
    assert f"{other} % of the pixels have another class than with torch" in caplog.text
    assert s5mars.load(found["file"]).predict(picture(1, 60, 60)).shape == (60, 60)
    assert export(folder)["on"].startswith("noise")


def test_images_that_are_too_small_are_the_reason(
    tmp_path: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = run(tmp_path / "run", resolution="1/4")  # 72 × 80 becomes 18 × 20
    reason = rf"images of {images} have less than 32 pixels .*\(1/4\)"
    with pytest.raises(UserError, match=f"--int8 needs larger images: the {reason}"):
        export(folder, int8=True, images=images)
    assert not list(tmp_path.rglob("*.onnx"))
    assert re.fullmatch(f"noise, because the {reason}", export(folder, images=images)["on"])
    assert not caplog.records


def test_damaged_images_are_left_out(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = SimpleNamespace(resolution=FULL)
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:99])
    paths = sorted(images.iterdir())
    assert len(_read(paths, loaded)) == 2
    assert "1 image with damaged files was left out" in caplog.text and "0.png" in caplog.text
    with pytest.raises(DamagedFileError, match=r"0\.png: damaged image"):
        _read(paths[:1], loaded)
    assert _read([], loaded) == []


def test_mistakes_are_named(tmp_path: Path, images: Path) -> None:
    folder = run(tmp_path / "run")
    with pytest.raises(ValueError, match=r"must end in \.onnx"):
        export(folder, out=tmp_path / "model.bin")
    with pytest.raises(ValueError, match="ONNX file; give the run"):
        export(tmp_path / "model.onnx")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        export(folder, images=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty contains no image"):
        export(folder, images=tmp_path / "empty")


def test_real_tiles(tmp_path: Path, real_data: Path) -> None:
    found = export(run(tmp_path / "run"), images=real_data / "marsscapes512/unlabelled")
    assert found["parity"]["equal"] > 0.9999 and found["parity"]["mean"] < 1e-5
