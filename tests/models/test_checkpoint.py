"""Checkpoints for sharing: what is written comes back, and damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from s5mars.classes import Class, Taxonomy
from s5mars.errors import DamagedFileError, UserError
from s5mars.models.checkpoint import load_model, save_model
from s5mars.models.deeplab import DeepLabV3Plus

THREE = Taxonomy("three", tuple(Class(name, (i, 0, 0)) for i, name in enumerate("abc")))
TRAINING = {"method": "s5mars", "seed": 3, "step": 20, "mIoU": 51.5}
Facts = dict[str, Any]


def network(seed: int, *, classes: int = 3) -> DeepLabV3Plus:
    torch.manual_seed(seed)
    made = DeepLabV3Plus(
        "mobilenetv3_small_050", classes, output_stride=8, normalisation="as_released"
    )
    made.train()(torch.rand(2, 3, 64, 64))  # running statistics that a new network lacks
    return made.eval()


NETWORKS = {"student": network(0), "teacher": network(1)}
IMAGE = torch.randint(0, 256, (1, 3, 50, 70), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_model(tmp_path / "best.safetensors", NETWORKS, taxonomy=THREE, training=TRAINING)
    return tmp_path


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_round_trip_gives_equal_logits(run: Path, name: str) -> None:
    loaded = load_model(run, network=name)
    assert loaded.network == name and loaded.taxonomy == THREE
    assert loaded.facts["training"] == TRAINING
    assert not loaded.model.training
    assert loaded.model.description == NETWORKS[name].description
    assert not any(p.requires_grad for p in loaded.model.parameters())
    with torch.no_grad():
        logits = loaded.model(IMAGE)
        assert torch.equal(logits, NETWORKS[name](IMAGE))
        other = NETWORKS["student" if name == "teacher" else "teacher"]
        assert not torch.equal(logits, other(IMAGE))


def test_teacher_is_the_default_and_the_file_may_be_named(run: Path) -> None:
    loaded = load_model(run / "best.safetensors")
    assert loaded.network == "teacher"


def test_a_method_without_teacher_gives_its_student(tmp_path: Path) -> None:
    only = {"student": NETWORKS["student"]}
    save_model(tmp_path / "best.safetensors", only, taxonomy=THREE, training=TRAINING)
    loaded = load_model(tmp_path, network="teacher")
    assert loaded.network == "student"
    assert loaded.facts["networks"] == ["student"]
    with torch.no_grad():
        assert torch.equal(loaded.model(IMAGE), NETWORKS["student"](IMAGE))


def test_shape_that_no_tensor_tells_comes_back(tmp_path: Path) -> None:
    """Dilation has no tensor: a network without it would load, and answer differently."""
    student = DeepLabV3Plus("resnet18", 3, multi_grid=(2, 4)).eval()
    save_model(tmp_path / "a.safetensors", {"student": student}, taxonomy=THREE, training={})
    model = load_model(tmp_path / "a.safetensors").model
    assert model.description == student.description
    with torch.no_grad():
        assert torch.equal(model(IMAGE), student(IMAGE))


def test_files_are_plain_and_readable_by_others(run: Path) -> None:
    assert sorted(path.name for path in run.iterdir()) == ["best.json", "best.safetensors"]
    modes = {path.stat().st_mode & 0o777 for path in run.iterdir()}
    assert len(modes) == 1  # the tensors are no more private than the JSON
    facts = json.loads((run / "best.json").read_text())
    assert facts["normalisation"]["mean"] == pytest.approx([0.625, 0.519, 0.363])
    assert facts["model"]["encoder"] == "mobilenetv3_small_050"


def test_a_failed_write_keeps_the_last_checkpoint(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}

    def full(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="the disk is full"):
        save_model(run / "best.safetensors", NETWORKS, taxonomy=THREE, training={})
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_what_is_not_there(tmp_path: Path, run: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"contains no best\.safetensors"):
        load_model(tmp_path / "empty")
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "config.yaml").touch()
    with pytest.raises(FileNotFoundError, match=r"resume it with `s5mars train --resume .*stopped"):
        load_model(tmp_path / "stopped")
    with pytest.raises(ValueError, match="must be one of teacher, student \\(got 'pupil'\\)"):
        load_model(run, network="pupil")
    (run / "best.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"best\.json is missing; .*copy both"):
        load_model(run)


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b[:5], lambda _: b"x" * 1000])
def test_damaged_tensors(run: Path, damage: Callable[[bytes], bytes]) -> None:
    path = run / "best.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"best\.safetensors: damaged") as caught:
        load_model(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_never_scored(run: Path, value: float) -> None:
    path = run / "best.safetensors"
    tensors = load_file(path)
    name = next(key for key, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name].view(-1)[0] = value
    save_file(tensors, path)
    with pytest.raises(DamagedFileError, match=r"best\.safetensors: weights .* not finite"):
        load_model(run, network=name.partition(".")[0])


def test_a_pickle_is_never_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(NETWORKS["student"].state_dict(), run / "best.safetensors")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("pickle was read"))
    with pytest.raises(ValueError, match="damaged checkpoint"):
        load_model(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f | {"format": 2}, "format 2, this version reads 1"),
        (lambda f: {k: v for k, v in f.items() if k != "format"}, "format None"),
        (lambda f: [f], "expected an object, got list"),
        (lambda f: {k: v for k, v in f.items() if k != "taxonomy"}, "missing 'taxonomy'"),
        (lambda f: {k: v for k, v in f.items() if k != "model"}, "missing 'model'"),
        (lambda f: f | {"taxonomy": ["a"]}, "damaged"),
        (lambda f: f | {"taxonomy": {"name": "x"}}, "damaged .*at least one entry"),
        (lambda f: f | {"model": "resnet"}, "damaged"),
        (lambda f: f | {"calibration": [1]}, "damaged .*calibration is not a table"),
        (lambda f: f | {"calibration": {"teacher": {"temperature": 0}}}, "damaged .*temperature"),
        (
            lambda f: f | {"taxonomy": {"classes": [{"name": "a"}]}},
            "its taxonomy has 1 classes, its network 3",
        ),
    ],
)
def test_damaged_facts(run: Path, change: Callable[[Facts], object], message: str) -> None:
    path = run / "best.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=rf"best\.json.*{message}"):
        load_model(run)


@pytest.mark.parametrize("text", ["{", "", "\x00\x01"])
def test_facts_that_are_no_json(run: Path, text: str) -> None:
    (run / "best.json").write_text(text)
    with pytest.raises(ValueError, match=r"best\.json: damaged"):
        load_model(run)
    (run / "best.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=r"best\.json: damaged"):
        load_model(run)


def test_tensors_of_another_network(run: Path) -> None:
    path = run / "best.safetensors"
    tensors = load_file(path)
    save_file({k: v for k, v in tensors.items() if "classifier" not in k}, path)
    with pytest.raises(ValueError, match=r"best\.safetensors does not fit the network"):
        load_model(run)
    save_file({k: v for k, v in tensors.items() if not k.startswith("student.")}, path)
    with pytest.raises(ValueError, match=r"best\.safetensors does not fit the network"):
        load_model(run, network="student")
    assert load_model(run).network == "teacher"


def test_a_network_of_a_newer_version_is_not_called_damaged(run: Path) -> None:
    path = run / "best.json"
    facts = json.loads(path.read_text())
    facts["model"]["network"] = "Mask2Former"
    path.write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"best\.safetensors: .*'Mask2Former': update s5mars"):
        load_model(run)


def test_only_the_teacher(tmp_path: Path) -> None:
    only = {"teacher": NETWORKS["teacher"]}
    save_model(tmp_path / "best.safetensors", only, taxonomy=THREE, training=TRAINING)
    assert load_model(tmp_path).network == "teacher"
    with pytest.raises(UserError, match="contains only the teacher"):
        load_model(tmp_path, network="student")
