"""The calibration on the page: what it says, and when it is not shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from s5mars.errors import UserError
from s5mars.evaluation.reliability import Pixels, measure
from s5mars.report.run import write_report

from .conftest import Page


def calibrated(run: Path, *, temperature: float = 2.0, in_best: float = 2.0) -> Path:
    random = np.random.default_rng(0)
    logits = random.normal(0, 4, (2000, 3)).astype(np.float32)
    label = np.where(random.random(2000) < 0.7, logits.argmax(1), 0).astype(np.uint8)
    pixels = Pixels(logits, label, np.zeros(2000, np.int32))
    calibration = {
        "temperature": temperature,
        "at_limit": False,
        "network": "teacher",
        "bins": 15,
        "fitted_on": {"data": "a", "split": "val", "images": 2, "pixels": 2000},
        "before": measure(pixels, 1.0),
        "after": measure(pixels, temperature),
    }
    (run / "calibration.json").write_text(json.dumps(calibration))
    best = json.loads((run / "best.json").read_text())
    best["calibration"] = {"teacher": {"temperature": in_best}}
    (run / "best.json").write_text(json.dumps(best))
    return run


def test_error_and_curves_are_shown(
    make_run: Callable[..., Path], network: type, open_page: Callable[[Path], Page]
) -> None:
    page = open_page(write_report(calibrated(make_run()), examples=0))
    assert "#confidence" in {a.get("href") for a in page.of("a")}
    assert "divided by the temperature 2.000, fitted on 2,000 labelled pixels" in page.text
    assert "Expected calibration error (15 bins of equal width)" in page.text
    labels = [a.get("aria-label", "") for a in page.of("svg")]
    assert any("Reliability over the confidence" in label for label in labels)
    assert any("Risk and coverage over the most confident pixels" in label for label in labels)


def test_without_one_or_with_that_of_other_weights_nothing_is_shown(
    make_run: Callable[..., Path], network: type, open_page: Callable[[Path], Page]
) -> None:
    for name, run in (("a", make_run("a")), ("b", calibrated(make_run("b"), in_best=3.0))):
        page = open_page(write_report(run, examples=0))
        assert "calibration error" not in page.text, name


def test_a_damaged_file_is_named(make_run: Callable[..., Path], network: type) -> None:
    run = calibrated(make_run())
    (run / "calibration.json").write_text("{}")
    with pytest.raises(ValueError, match=r"calibration\.json: damaged calibration"):
        write_report(run, examples=0)


def test_a_file_without_counts_at_thresholds_is_to_be_made_again(
    make_run: Callable[..., Path], network: type
) -> None:
    run = calibrated(make_run())
    calibration = json.loads((run / "calibration.json").read_text())
    del calibration["after"]["thresholds"]
    (run / "calibration.json").write_text(json.dumps(calibration))
    with pytest.raises(UserError, match=r"calibration\.json: .*run `s5mars calibrate` again"):
        write_report(run, examples=0)
