"""Self-training through the command line: three stages, stopped anywhere, and the ranking."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from s5mars.classes import IGNORE
from s5mars.cli import main
from s5mars.comparison.results import saved_states
from s5mars.data.read import open_image
from s5mars.data.synthetic import write_synthetic
from s5mars.methods.supervised import Supervised
from s5mars.training.record import Record
from s5mars.training.stages import _excluded_pixels, reliability
from s5mars.types import Sample, Term


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    return write_synthetic(folder / "scenes", images=14, size=64, unlabelled=2)


def arguments(scenes: Path, out: Path, **changes: object) -> list[str]:
    settings: dict[str, object] = {
        "data": scenes, "out": out, "method": "self_training", "labelled": 0.5, "steps": 9,
        "batch": 2, "crop": 48, "model": "test_resnet", "weights": "none", "workers": 0,
        "validate-every": 2, "warm-up": 0, "ramp": 0, "resolution": "full",
    }  # fmt: skip
    settings |= {key.replace("_", "-"): value for key, value in changes.items()}
    return ["train", *(f"--{key}={value}" for key, value in settings.items())]


@pytest.fixture(scope="module")
def unbroken(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    assert main(arguments(scenes, out)) == 0
    return out


def metrics(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return content


def names(path: Path) -> list[str]:
    return path.read_text().split()


def test_reliability_is_the_mean_iou_with_the_last_prediction() -> None:
    last = np.array([[0, 0, 1, 1]], np.uint8)
    half = np.array([[0, 0, 0, 1]], np.uint8)  # IoU 2/3 and 1/2
    other = np.array([[2, 2, 2, 2]], np.uint8)  # three classes, none in common
    assert reliability([last, last], classes=4) == 1
    assert reliability([half, last], classes=4) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert reliability([other, last], classes=4) == 0
    assert reliability([half, other, last], classes=4) == pytest.approx(7 / 24)


def test_pixels_without_data_are_in_no_reliability(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    image = random.integers(60, 255, (40, 40, 3), np.uint8)
    image[:, :10] = 0  # a border
    alpha = np.full((40, 40, 1), 255, np.uint8)
    alpha[5:8, 20:23] = 0  # transparent, inside
    Image.fromarray(np.concatenate([image, alpha], axis=2)).save(tmp_path / "a.png")
    rover = np.zeros((40, 40), np.uint8)
    rover[30:] = 1
    Image.fromarray(rover).save(tmp_path / "rover.png")
    left_out = _excluded_pixels(
        Sample("a", tmp_path / "a.png", hide=(tmp_path / "rover.png",)),
        open_image(tmp_path / "a.png"),
    )
    assert left_out[:, :10].all() and left_out[30:].all() and left_out[5:8, 20:23].all()
    assert left_out[:30, 10:].sum() == 9
    last = np.zeros((40, 40), np.uint8)
    other = np.where(left_out, np.uint8(1), last)  # disagrees there alone
    last[left_out] = IGNORE
    assert reliability([other, last], classes=2) == 1
    assert reliability([other, np.full_like(last, IGNORE)], classes=2) == 0


def test_three_stages(unbroken: Path) -> None:
    stages = unbroken / "stages"
    assert len(list((stages / "labels" / "snapshots").glob("*.safetensors"))) == 3
    with (stages / "reliability.csv").open() as file:
        ranking = list(csv.DictReader(file))
    values = [float(row["reliability"]) for row in ranking]
    assert values == sorted(values, reverse=True)
    pool = names(unbroken / "splits" / "pool.txt")
    assert sorted(row["name"] for row in ranking) == sorted(pool)
    reliable = names(stages / "reliable.txt")
    assert reliable == [row["name"] for row in ranking][: len(pool) // 2]
    assert names(stages / "reliable" / "splits" / "pool.txt") == reliable
    labelled = [names(run / "splits" / "labelled.txt") for run in
                (unbroken, stages / "labels", stages / "reliable")]  # fmt: skip
    assert labelled[0] == labelled[1] == labelled[2]
    facts = metrics(unbroken)
    assert facts["total_steps"] == 3
    assert [stage["name"] for stage in facts["stages"]] == ["labels", "reliable"]
    assert facts["pool_crops"] == 2 * (0 + 3 + 3)
    assert facts["network"] == "student"
    kept = load_file(unbroken / "best.safetensors")
    assert {key.partition(".")[0] for key in kept} == {"student"}
    labeller = load_file(stages / "reliable" / "best.safetensors")
    state = torch.load(unbroken / "last.ckpt", weights_only=True)["state_dict"]
    for key, value in labeller.items():
        assert torch.equal(state[key.replace("student.", "given_teacher.", 1)], value)


@pytest.mark.parametrize("stage", ["labels", pytest.param("reliable", marks=pytest.mark.slow), ""])
def test_a_run_stopped_in_any_stage_goes_on_to_the_same_end(
    stage: str,
    scenes: Path,
    unbroken: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "stopped"
    score = Record.score

    def score_and_stop(self: Record, module: Any, **others: Any) -> None:
        score(self, module, **others)
        if self.config.out == (out / "stages" / stage if stage else out):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "score", score_and_stop)
        assert main(arguments(scenes, out)) == 143
    said = capsys.readouterr().err
    assert f"--resume {out}\n" in said and f"--resume {out}/" not in said
    assert saved_states(out)  # so that a comparison goes on with it
    assert main(["train", "--resume", str(out)]) == 0
    one, other = (load_file(run / "best.safetensors") for run in (out, unbroken))
    assert all(torch.equal(one[key], other[key]) for key in other)
    one, other = (
        torch.load(run / "last.ckpt", weights_only=True)["state_dict"] for run in (out, unbroken)
    )
    assert all(torch.equal(one[key], other[key]) for key in other)
    assert metrics(out)["history"] == metrics(unbroken)["history"]


@pytest.mark.parametrize("folds", [0, 2])
def test_an_error_of_a_part_names_the_run_to_resume(
    folds: int,
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A stage, or the stage of a fold."""
    losses = Supervised.losses

    def broken(self: Supervised, *arguments: Any) -> dict[str, Term]:
        terms = losses(self, *arguments)
        factor = torch.nan if arguments[-1].step == 1 else 1.0
        return {name: replace(term, value=term.value * factor) for name, term in terms.items()}

    monkeypatch.setattr(Supervised, "losses", broken)
    out = tmp_path / "out"
    # In fp32, which `auto` is on many CPUs, no other precision is advised.
    given = arguments(scenes, out, folds=folds, save_every=1, precision="bf16")
    assert main(given) == 2
    said = capsys.readouterr().err
    assert f"{out / 'fold-1' if folds else out}: stage labels\n" in said
    assert said.endswith(
        f"set `precision: fp32` in {out / 'config.yaml'}; step 1 is saved; resume with: s5mars "
        f"train --resume {out}\n"
    )


def test_a_given_teacher_needs_one_stage(scenes: Path, unbroken: Path, tmp_path: Path) -> None:
    teacher = unbroken / "stages" / "reliable"
    assert main(arguments(scenes, tmp_path / "run", steps=3, teacher=teacher)) == 0
    assert not (tmp_path / "run" / "stages").exists()
    one, other = (load_file(r / "best.safetensors") for r in (tmp_path / "run", unbroken))
    assert all(torch.equal(one[key], other[key]) for key in other)


def test_a_teacher_of_another_resolution_is_refused(
    scenes: Path, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(scenes, tmp_path / "run", steps=3, teacher=unbroken, resolution="1/1.5")
    assert main(given) == 2
    assert "--resolution full, but this run has 1/1.5" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 8}, "--steps must be at least 9 (got 8)"),
        ({"teacher": "nowhere"}, "nowhere"),
        ({"teacher": "x", "method": "fixmatch"}, "leave it out"),
        ({"pool": "trian"}, "list file (got 'trian')"),
    ],
)
def test_what_cannot_work_is_refused(
    changes: dict[str, object], said: str, scenes: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(arguments(scenes, tmp_path / "run", **changes)) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_image_of_the_pool_that_is_damaged_and_then_removed(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = shutil.copytree(scenes, tmp_path / "scenes"), tmp_path / "out"
    image = next((data / "unlabelled").iterdir())
    image.write_bytes(image.read_bytes()[:300])
    assert main(arguments(data, out)) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{image}: " in said and said.endswith(
        "replace it, or leave it out with --skip-bad; the finished stages are saved; resume with: "
        f"s5mars train --resume {out} [--skip-bad]"
    )
    # As if it had been damaged after the ranking.
    pool = names(out / "splits" / "pool.txt")
    removed = f"unlabelled/{image.stem}"
    (out / "stages" / "reliable.txt").write_text(f"{pool[0]}\n{removed}\n")
    image.unlink()
    assert main(["train", "--resume", str(out)]) == 0
    assert names(out / "stages" / "reliable.txt") == [pool[0]]
    assert metrics(out)["pool_images"] == len(pool) - 1
