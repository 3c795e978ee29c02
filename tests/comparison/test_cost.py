"""A step's cost on the smallest network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from s5mars.cli import main
from s5mars.comparison.peak import peak_in_fresh_process
from s5mars.comparison.step import CostSettings, Step
from s5mars.methods import METHODS

TINY = CostSettings(model="test_resnet", crop=32, batch=2, classes=3, rounds=1)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_changes_the_student(name: str) -> None:
    step = Step(name, TINY, torch.device("cpu"))
    before = step.module.student.classifier.weight.clone()
    step()
    assert not torch.equal(before, step.module.student.classifier.weight)
    teacher = step.module.teacher
    networks = 1 if teacher is None else 2
    assert step.held >= networks * step.trained


def test_a_teacher_that_is_given_is_held() -> None:
    step = Step("self_training", TINY, torch.device("cpu"))
    assert step.held == 2 * step.trained


@pytest.mark.slow
def test_the_peak_of_a_fresh_process() -> None:
    assert peak_in_fresh_process("s5mars", TINY) > 2**20


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A fresh process for each method is tested above, once.
    monkeypatch.setattr("s5mars.comparison.cost.peak_in_fresh_process", lambda *_: 7 * 2**20)
    out = tmp_path / "cost.json"
    sizes = ["--model=test_resnet", "--crop=32", "--batch=2", "--rounds=1", "--device=cpu"]
    assert main(["cost", "--methods", "s5mars", *sizes, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    ours, _, papers = shown.partition("The paper's numbers, not measured here: table XIII")
    assert "196.15 M" in papers and "196.15" not in ours
    assert "peak resident memory of a fresh process" in ours and ours.count("7 MiB") == 2
    supervised, s5mars = json.loads(out.read_text())["costs"]
    assert supervised["ratio"] == 1.0
    assert s5mars["held"] == 2 * s5mars["trained"] == 2 * supervised["trained"]
    # Forward of twice the images and a teacher, backward of twice the images.
    assert 2 < s5mars["flops"] / supervised["flops"] < 3
    assert supervised["peak"] == s5mars["peak"] == 7 * 2**20


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--methods", "s5mrs"]) == 2
    assert "unknown method 's5mrs'; nearest first: s5mars, " in capsys.readouterr().err
    assert main(["cost", "--crop", "8"]) == 2
    assert "--crop must be at least 32 (got 8)" in capsys.readouterr().err
    assert main(["cost", "--batch", "1"]) == 2
    assert "--batch must be at least 2 (got 1)" in capsys.readouterr().err
