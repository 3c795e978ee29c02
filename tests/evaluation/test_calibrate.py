"""The command: a temperature in the run, used by ``load``, gone with the weights it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import s5mars
from s5mars.cli import main
from s5mars.data.layouts import open_dataset
from s5mars.evaluation.calibrate import calibrate
from s5mars.evaluation.reliability import HIGHEST
from s5mars.models.checkpoint import load_model, save_model
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.models.facts import write_class_biases
from s5mars.predict.inference import Inference


def save(folder: Path, data: Path, *, scale: float = 30.0) -> Path:
    networks = {}
    for seed, name in enumerate(("student", "teacher")):
        torch.manual_seed(seed)
        network = DeepLabV3Plus("mobilenetv3_small_050", 3, weights="none").eval()
        network.classifier.weight.data *= scale * (seed + 1)
        networks[name] = network
    taxonomy = open_dataset(data).taxonomy
    training = {"seed": 0, "step": 5, "data": str(data)}
    save_model(folder / "best.safetensors", networks, taxonomy=taxonomy, training=training)
    return folder


@pytest.fixture
def data(tmp_path: Path, fake_data: ModuleType) -> Path:
    return Path(fake_data.plain(tmp_path / "data"))


def test_load_uses_it_labels_stay_and_new_weights_drop_it(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save(tmp_path / "run", data)
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    before = s5mars.load(run)
    assert main(["calibrate", str(run), "--data", str(data), "--window", "64"]) == 0
    printed = capsys.readouterr().out
    assert "expected calibration error, 15 bins" in printed and "changes no class" in printed
    found = json.loads((run / "calibration.json").read_text())
    predictor = s5mars.load(run)
    assert predictor.temperature == found["temperature"] != 1
    assert f"temperature {found['temperature']:.3f}" in predictor.confidence_note
    assert found["after"]["nll"] < found["before"]["nll"]
    assert found["fitted_on"]["split"] == "val" and found["network"] == "teacher"
    labels, probabilities = predictor.predict(image, probabilities=True)
    plain, sharp = before.predict(image, probabilities=True)
    assert np.array_equal(labels, plain) and np.abs(probabilities - sharp).max() > 1e-3
    assert s5mars.load(run, network="student").temperature == 1
    assert s5mars.load(run, temperature=2.0).temperature == 2
    assert s5mars.load(run / "best.safetensors").temperature == predictor.temperature
    save(run, data)
    assert s5mars.load(run).temperature == 1


def test_the_student_has_its_own(tmp_path: Path, data: Path) -> None:
    run = save(tmp_path / "run", data)
    calibrate(run, data=data, inference=Inference(window=64))
    found = calibrate(run, data=data, network="student", pixels=200, inference=Inference(window=64))
    assert found["fitted_on"]["pixels"] == 200 and (run / "calibration-student.json").is_file()
    temperatures = [load_model(run, network=name).temperature for name in ("teacher", "student")]
    assert temperatures[1] == found["temperature"] != temperatures[0]


def test_a_fit_that_stops_at_the_end_of_its_range_says_so(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save(tmp_path / "run", data, scale=1e6)  # surer than any temperature can repair
    found = calibrate(run, data=data, pixels=200, inference=Inference(window=64))
    assert found["at_limit"] and found["temperature"] < HIGHEST
    assert "The fit stopped at the end of its range" in capsys.readouterr().out


def test_biases_that_are_replaced_or_removed_do_not_enter_the_fit(
    tmp_path: Path, data: Path
) -> None:
    run = save(tmp_path / "run", data)
    plain = calibrate(run, data=data, inference=Inference(window=64))
    write_class_biases(run, "teacher", {"values": [3.0, 0.0, -3.0]})
    kept = calibrate(run, data=data, inference=Inference(window=64))
    removed = calibrate(run, data=data, class_biases="none", inference=Inference(window=64))
    assert removed["before"] == plain["before"] != kept["before"]
    assert removed["temperature"] == plain["temperature"]


def test_images_that_it_was_trained_on_are_counted(
    tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = save(tmp_path / "run", data)
    dataset = s5mars.open_dataset(data)
    facts = json.loads((run / "best.json").read_text())
    facts["training"]["dataset"] = dataset.taxonomy.name
    (run / "best.json").write_text(json.dumps(facts))
    (run / "splits").mkdir()
    names = [sample.name for sample in dataset.split("train")]
    (run / "splits" / "labelled.txt").write_text("\n".join(names[:2]))
    calibrate(run, data=data, split="train")
    assert f"labels of 2 of the {len(names)} images of train" in caplog.text
    caplog.clear()
    calibrate(run, data=data, split="val")
    assert not caplog.text


def test_mistakes_are_named(tmp_path: Path, data: Path, fake_data: ModuleType) -> None:
    run = save(tmp_path / "run", data)
    with pytest.raises(ValueError, match=r"--pixels must be at least 1 \(got 0\)"):
        calibrate(run, data=data, pixels=0)
    with pytest.raises(ValueError, match="valid"):
        calibrate(run, data=data, split="valid")
    facts = json.loads((run / "best.json").read_text())
    facts["calibration"] = {"teacher": {"temperature": -1}}
    (run / "best.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=r"best\.json: damaged .*temperature is -1"):
        s5mars.load(run)
