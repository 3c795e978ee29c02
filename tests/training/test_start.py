"""Runs that start from a model, and the record of training images that runs leave behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from s5mars.cli import main
from s5mars.data.synthetic import write_synthetic
from s5mars.models.checkpoint import load_model
from s5mars.training.loop import Loop


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("start") / "scenes", images=40, size=64)


def train(scenes: Path, out: Path, *, code: int = 0, **changes: object) -> Path:
    settings: dict[str, object] = {
        "data": scenes, "out": out, "method": "mean_teacher", "steps": 2, "batch": 2, "crop": 48,
        "model": "test_resnet", "workers": 0, "accelerator": "cpu", "save-every": 1,
        "resolution": "full",
    }  # fmt: skip
    settings |= {key.replace("_", "-"): value for key, value in changes.items()}
    assert main(["train", *(f"--{key}={value}" for key, value in settings.items())]) == code
    return out


@pytest.fixture(scope="module")
def first(scenes: Path) -> Path:
    return train(scenes, scenes.parent / "runs" / "first", weights="none")


def facts(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "best.json").read_text())
    return found


def test_a_run_knows_its_training_images(scenes: Path, first: Path) -> None:
    loaded = load_model(first)
    domain = loaded.domain
    assert domain is not None and domain.features is not None
    # The scenes are in colour and name no camera.
    train_images = loaded.facts["training"]["train_images"]
    assert train_images >= 20 and domain.images == train_images
    assert (domain.colour, domain.sides, domain.cameras) == (1.0, (64, 64), {})
    assert domain.network == "teacher"
    student = load_model(first, network="student")
    assert student.domain is not None and student.domain.features is None


def test_a_finished_run_without_the_record_gets_it(
    scenes: Path, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(first, run)
    without = facts(run)
    del without["domain"]
    (run / "best.json").write_text(json.dumps(without))
    assert main(["train", "--resume", str(run)]) == 0
    assert "is finished" in capsys.readouterr().out
    assert facts(run) == facts(first)
    again, before = (load_file(folder / "best.safetensors") for folder in (run, first))
    assert again.keys() == before.keys()
    assert all(torch.equal(again[key], before[key]) for key in again)
    files = {path: path.read_bytes() for path in run.glob("best.*")}
    assert main(["train", "--resume", str(run)]) == 0
    assert files == {path: path.read_bytes() for path in run.glob("best.*")}


def test_start_from_is_recorded_and_resumed(
    scenes: Path,
    first: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = train(scenes, tmp_path / "second", start_from=first)
    said = capsys.readouterr().err
    assert "encoder weights: first (--start-from); copied: decoder" in said
    assert f"read from {first}" in said
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["encoder_weights"].startswith("encoder weights: first (--start-from)")
    assert yaml.safe_load((run / "config.yaml").read_text())["start_from"] == str(first)
    # A network that starts at random is far from where this one is after two small steps.
    begun, trained = (load_model(folder).model.state_dict() for folder in (first, run))
    change = (begun["classifier.weight"] - trained["classifier.weight"]).abs().max()
    assert 0 < change < 0.1 * begun["classifier.weight"].abs().max()

    # Stopped after its first step, and resumed where the model is no longer there.
    stopped = tmp_path / "stopped"
    save_or_stop = Loop._save_or_stop

    def stop(self: Loop, took: float) -> bool:
        self.signals.stopped_by = "a test"
        return save_or_stop(self, took)

    monkeypatch.setattr(Loop, "_save_or_stop", stop)
    train(scenes, stopped, code=143, start_from=first)
    monkeypatch.undo()
    assert "domain" not in facts(stopped)
    moved = first.rename(first.with_name("moved"))
    try:
        assert main(["train", "--resume", str(stopped)]) == 0
    finally:
        moved.rename(first)
    one, other = (load_file(folder / "best.safetensors") for folder in (run, stopped))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert facts(stopped)["training"]["encoder_weights"] == metrics["encoder_weights"]
