"""A ViT by the real command line: frozen, stopped and resumed, scored, calibrated and exported."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from s5mars.cli import main
from s5mars.data.synthetic import write_synthetic
from s5mars.models.licences import DINOV3
from s5mars.models.segmenter import Segmenter
from s5mars.training.record import Record

MODEL = "test_vit"  # timm's own, with patches of 16 pixels
EPOCHS = 12


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two train images of one tile each: an epoch is one step."""
    folder = write_synthetic(tmp_path_factory.mktemp("data") / "scenes", images=14, size=64)
    for name, count in (("train", 2), ("val", 1), ("test", 1)):
        path = folder / "splits" / f"{name}.txt"
        path.write_text("".join(f"{line}\n" for line in path.read_text().split()[:count]))
    torch.manual_seed(0)
    weights = timm.create_model(MODEL).state_dict()
    save_file(weights, folder.parent / "vit.safetensors")
    return folder


def train(scenes: Path, out: Path, *more: str) -> int:
    settings = {
        "data": scenes, "out": out, "model": MODEL, "weights": scenes.parent / "vit.safetensors",
        "method": "supervised", "epochs": EPOCHS, "batch": 2, "crop": 64, "workers": 0,
        "accelerator": "cpu", "devices": 1, "validate-every": EPOCHS // 2, "recipe": "paper",
        "learning-rate": 0.1,
    }  # fmt: skip
    return main(["train", *(f"--{key}={value}" for key, value in settings.items()), *more])


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A whole run with a frozen encoder, and how many images the encoder saw in it."""
    out = tmp_path_factory.mktemp("runs") / "frozen"
    encoded: list[int] = []
    original = Segmenter.encode

    def counted(self: Segmenter, normalised: torch.Tensor) -> tuple[torch.Tensor, ...]:
        encoded.append(len(normalised))
        return original(self, normalised)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segmenter, "encode", counted)
        # What it records about its training images afterwards is not counted.
        patch.setattr("s5mars.training.run.record_domain", lambda *_, **__: None)
        assert train(scenes, out, "--freeze=encoder", "--head=linear") == 0
    return out, sum(encoded)


def test_an_epoch_costs_the_head(run: tuple[Path, int], scenes: Path) -> None:
    out, encoded = run
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == EPOCHS
    # Two images, each as it is and mirrored, and the validation image; validated twice.
    assert encoded == 5
    assert len(list((out / "features").rglob("*.safetensors"))) == 5
    first, last = (entry["loss"] for entry in metrics["history"])
    assert last < first
    state, given = load_file(out / "best.safetensors"), load_file(scenes.parent / "vit.safetensors")
    kept = [key for key in given if f"student.encoder.model.{key}" in state]
    assert len(kept) > 50
    assert all(torch.equal(state[f"student.encoder.model.{key}"], given[key]) for key in kept)
    assert metrics["encoder_weights"].startswith("encoder weights: vit.safetensors; ")


def test_a_stopped_run_with_a_cache_equals_the_unbroken_one(
    run: tuple[Path, int], scenes: Path, tmp_path: Path
) -> None:
    unbroken, out = run[0], tmp_path / "stopped"
    score = Record.score

    def score_and_stop(self: Record, module: Any, **options: Any) -> None:
        score(self, module, **options)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Record, "score", score_and_stop)
        cache = f"--feature-cache={tmp_path / 'cache'}"
        assert train(scenes, out, "--freeze=encoder", "--head=linear", cache) == 143
    assert torch.load(out / "last.ckpt", weights_only=True)["global_step"] == EPOCHS // 2
    shutil.rmtree(tmp_path / "cache")  # what is computed again is the same
    assert main(["train", "--resume", str(out)]) == 0
    states = [torch.load(each / "last.ckpt", weights_only=True) for each in (out, unbroken)]
    one, other = (state["state_dict"] for state in states)
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def test_it_is_scored_calibrated_exported_and_started_from(
    run: tuple[Path, int], scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(run[0], tmp_path / "run")
    data = ["--data", str(scenes), "--device", "cpu"]
    assert main(["evaluate", str(out), *data]) == 0
    assert main(["calibrate", str(out), *data]) == 0
    image = next((scenes / "images").iterdir())
    maps = str(tmp_path / "maps")
    assert main(["predict", str(out), str(image), "--out", maps, "--device", "cpu"]) == 0
    pytest.importorskip("onnxruntime")
    capsys.readouterr()
    assert main(["export", str(out)]) == 0
    found = re.search(r"([\d.]+) % of .* have the same class", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) > 99  # ties may fall differently
    assert main(["export", str(out), "--int8"]) == 2
    assert "--int8 quantises convolutions, but test_vit" in capsys.readouterr().err
    # Tuned from there with the same decoder, its classes included.
    assert train(
        scenes, tmp_path / "tuned", "--head=linear", "--weights=auto", f"--start-from={out}",
        "--epochs=1",
    ) == 0  # fmt: skip
    said = capsys.readouterr().err
    assert "copied: decoder (decoder); copied classes:" in said
    assert f"network: {MODEL} with head linear; 0.3" in said


def test_a_licence_is_asked_for_before_anything_is_downloaded(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dinov3 = ["--model=vit_small_patch16_dinov3", "--weights=auto"]
    assert train(scenes, tmp_path / "a", *dinov3) == 2
    said = capsys.readouterr().err
    assert "ITAR" in said and f"--accept-licence {DINOV3}" in said and said.count("\n") == 1
    assert train(scenes, tmp_path / "a", f"--accept-licence={DINOV3}") == 2
    assert "need no agreement" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_the_cost_of_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s5mars.comparison.cost.peak_in_fresh_process", lambda *_: 7 * 2**20)
    trained = {}
    for head in ("linear", "dpt"):
        out = tmp_path / f"{head}.json"
        sizes = [f"--model={MODEL}", "--crop=32", "--batch=2", "--rounds=1", "--device=cpu"]
        words = ["cost", "--methods", "supervised", f"--head={head}", *sizes, "--out", str(out)]
        assert main(words) == 0
        content = json.loads(out.read_text())
        trained[head] = content["costs"][0]["trained"]
        assert f"{MODEL} with head {head}, crop 32" in content["notes"][0]
    assert trained["dpt"] > trained["linear"] + 500_000
