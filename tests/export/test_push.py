"""Up to a stand-in of the hub and down again; what strangers may not see stays where it is."""

from __future__ import annotations

import json
import os
import resource
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.utils._http
import numpy as np
import pytest
from huggingface_hub import constants

import s5mars
from apart import run_command
from s5mars.cli import main
from s5mars.export.push import push

from .hubserver import TOKEN, Hub, serving
from .networks import picture, run


def point_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # It waits half a minute before it gives up on a connection.
    waiting = SimpleNamespace(sleep=lambda seconds: None)
    monkeypatch.setattr(huggingface_hub.utils._http, "time", waiting)
    with serving(Hub()) as server:
        point_at(server.address, monkeypatch)
        yield server


def test_what_was_pushed_is_loaded_and_later_without_the_hub(
    tmp_path: Path,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = run(tmp_path / "run", temperature=1.25)
    words = ["push", str(folder), "me/mars", "--licence", "apache-2.0", "--private"]
    assert main(words) == 0
    assert 's5mars.load("hf:me/mars")' in capsys.readouterr().out
    assert set(hub.models["me/mars"]) == {"README.md", "best.json", "best.safetensors"}
    assert hub.private == {"me/mars"}
    hub.models["me/mars"]["pytorch_model.bin"] = b"a pickle that nobody asks for"
    image = picture(0, 70, 80)
    predictor = s5mars.load("hf:me/mars", window=64)
    assert predictor.temperature == 1.25
    assert np.array_equal(predictor.predict(image), s5mars.load(folder, window=64).predict(image))
    assert hub.downloads == ["best.json", "best.safetensors"]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        point_at(f"http://127.0.0.1:{closed.getsockname()[1]}", monkeypatch)
        again = s5mars.load("hf:me/mars", window=64)
        assert np.array_equal(again.predict(image), predictor.predict(image))
        with pytest.raises(FileNotFoundError, match="me/new is not in the local cache"):
            s5mars.load("hf:me/new")
        with pytest.raises(FileNotFoundError, match="cannot be reached, so nothing was uploaded"):
            push(folder, "me/mars")


def test_what_the_hub_does_not_have_is_named(tmp_path: Path, hub: Hub) -> None:
    hub.models["me/pickle"] = {"pytorch_model.bin": b""}
    hub.models["me/other"] = {"best.json": b'{"format": 7}', "best.safetensors": b""}
    for name, kind, message in (
        ("me/none", FileNotFoundError, "me/none does not exist on the hub"),
        ("me/pickle", ValueError, "not uploaded by `s5mars push`"),
        ("me/other", ValueError, "format 7, this version reads 1: update s5mars"),
        ("me/other@v2", FileNotFoundError, "no revision 'v2'"),
        ("not a name", ValueError, "write hf:OWNER/NAME"),
    ):
        with pytest.raises(kind, match=message) as raised:
            s5mars.load(f"hf:{name}")
        assert "\n" not in str(raised.value)
    assert "best.safetensors" not in hub.downloads


def test_what_may_not_be_pushed_is_named(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(tmp_path / "run")
    with pytest.raises(ValueError, match="this token may not write you/mars"):
        push(folder, "you/mars")
    for name in ("mars", "a b/c"):
        with pytest.raises(ValueError, match="write OWNER/NAME"):
            push(folder, name)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        push(tmp_path / "nowhere", "me/mars")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(FileNotFoundError, match="no hub token"):
        push(folder, "me/mars")
    assert not hub.models.get("me/mars")


def test_a_dry_run_writes_the_card_and_no_folder_of_this_machine(tmp_path: Path) -> None:
    folder = run(
        tmp_path / "run",
        temperature=1.25,
        data="/home/somebody/mars",
        splits="/home/somebody/lists",
    )
    names = ("dark | low", "middle", "bright")
    classes = {
        name: {"iou": iou, "acc": 60.0, "support": support}
        for name, iou, support in zip(names, (0.0, 70.0, None), (10, 90, 0), strict=True)
    }
    evaluation = {
        "mIoU": 35.0, "mAcc": 60.0, "pixel_accuracy": 80.0, "classes": classes,
        "protocol": {
            "name": "full", "words": "the whole image", "split": "test", "network": "teacher",
            "images": 12, "window": 1024, "overlap": 0.25, "data": "/home/somebody/mars",
        },
        "run": str(folder),
    }  # fmt: skip
    (folder / "evaluation-test-full.json").write_text(json.dumps(evaluation))
    curve = {"coverage": [0.5, 1.0], "risk": [0.1, 0.2], "threshold": [0.7, 0.3]}
    calibration = {
        "temperature": 1.25, "network": "teacher", "bins": 15, "before": {"ece": 0.08},
        "after": {
            "ece": 0.02,
            "risk_coverage": curve,
            "thresholds": {"threshold": [0.6], "coverage": [0.5], "risk": [0.1]},
        },
        "fitted_on": {"data": "/home/somebody/mars", "split": "val", "pixels": 1234},
    }  # fmt: skip
    (folder / "calibration.json").write_text(json.dumps(calibration))
    out = tmp_path / "upload"
    assert main(["push", str(folder), "me/mars", "--dry-run", str(out)]) == 0
    written = {path.name for path in out.iterdir()}
    assert written == {
        "README.md", "best.json", "best.safetensors", "calibration.json",
        "evaluation-test-full.json",
    }  # fmt: skip
    assert not any(b"somebody" in path.read_bytes() for path in out.iterdir())
    assert str(tmp_path) not in (out / "evaluation-test-full.json").read_text()
    card = (out / "README.md").read_text(encoding="utf-8")
    for part in (
        's5mars.load("hf:me/mars")', "mIoU **35.00 %**",
        "The scores are for the test split (12 images)",
        "| 0 | dark \\| low | #c80000 | 0.00 | 60.00 | 10 | in the shade |", "5 of 20 images",
        "trained with S5Mars on `mars`", "8.00 % before and 2.00 % after",
        "50.0 % of these pixels keep a class, and 10.0 % of them are wrong",
        "(no ground truth): bright", "Classes with IoU below 30 %: dark | low",
        "No licence was given for the weights",
    ):  # fmt: skip
        assert part in card, part
    assert "license:" not in card
    assert s5mars.load(out).temperature == 1.25
    with pytest.raises(ValueError, match="not empty"):
        push(folder, "me/mars", dry_run=out)


def test_scores_of_earlier_weights_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path / "run")
    evaluation = folder / "evaluation-test-full.json"
    evaluation.write_text("{}")
    os.utime(evaluation, (1_000, 1_000))
    out = push(folder, "me/mars", dry_run=tmp_path / "upload")
    assert "belongs to other weights or class biases and is left out" in capsys.readouterr().err
    assert not (Path(out) / evaluation.name).exists()
    assert "was not evaluated." in (Path(out) / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("variant", ["student", "dark+middle", "student-dark+middle"])
def test_scores_of_the_student_or_of_merged_classes_are_not_those_of_the_model(
    tmp_path: Path, variant: str
) -> None:
    folder = run(tmp_path / "run")
    (folder / f"evaluation-test-full-{variant}.json").write_text('{"mIoU": 12.0, "classes": {}}')
    card = Path(push(folder, "me/mars", dry_run=tmp_path / "a")) / "README.md"
    assert "was not evaluated." in card.read_text(encoding="utf-8")
    (folder / "evaluation-val-paper.json").write_text('{"mIoU": 34.0, "classes": {}}')
    card = Path(push(folder, "me/mars", dry_run=tmp_path / "b")) / "README.md"
    assert "mIoU **34.00 %**" in card.read_text(encoding="utf-8")


def test_the_card_says_why_there_is_no_interval(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    evaluation = {
        "mIoU": 34.0, "classes": {}, "protocol": {"split": "test", "images": 3},
        "intervals": {"mIoU": [None, None], "draws": 1000},
    }  # fmt: skip
    (folder / "evaluation-test-full.json").write_text(json.dumps(evaluation))
    out = Path(push(folder, "me/mars", dry_run=tmp_path / "upload"))
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "There is no interval, because fewer than 5 images have labels." in card
    assert "Scores are computed on 3 images.\n" in card
    assert "bootstrap" not in card and "too narrow" not in card


def test_a_run_that_was_never_scored_says_so(tmp_path: Path) -> None:
    out = push(run(tmp_path / "run"), "me/mars", licence="mit", dry_run=tmp_path / "upload")
    card = (Path(out) / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: mit\n")
    assert "not evaluated. On the val split" in card and "not calibrated" in card


def test_a_dry_run_that_fills_the_disk_leaves_no_half_file(tmp_path: Path) -> None:
    folder, out = run(tmp_path / "run"), tmp_path / "out"
    size = (folder / "best.safetensors").stat().st_size
    full = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size - 1, size - 1))
    words = ["push", str(folder), "me/mars", "--dry-run", str(out)]
    done = run_command(words, tmp_path, before=full)
    assert done.code == 2
    assert done.err.startswith("s5mars: ") and done.err.count("\n") == 1
    assert not list(out.iterdir())
