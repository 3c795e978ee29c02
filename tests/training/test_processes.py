"""Two processes on a CPU train what one would, and neither waits for the other when it is dead."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from apart import start_command
from s5mars.cli import main
from s5mars.data.synthetic import write_synthetic
from s5mars.methods import METHODS as ALL
from s5mars.methods import method_class
from s5mars.settings.parsing import parse_training
from trainers import STOP, together

METHODS = [name for name in ALL if name != "self_training"]  # its stages run in one process
STEPS = 2
EXTRA: dict[str, dict[str, object]] = {"u2pl": {"u2pl.anchor_probability": 0.05}}
TOLERANCE = {"u2pl": 1e-2}
"""Its quantiles lie between equal entropies, where rounding decides which pixel is kept."""

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of Lightning, about tiny runs
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs Linux"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    write_synthetic(folder / "scenes", images=14, size=64)
    return folder


def arguments(folder: Path, name: str, *, devices: int, **changes: object) -> list[str]:
    # A small step: the pooled branch normalises four values, and enlarges what rounding leaves. Of
    # SGD: AdamW divides by the size of a gradient, so that rounding alone makes a step.
    settings: dict[str, object] = {
        "data": folder / "scenes", "out": folder / name, "labelled": 0.5, "steps": STEPS,
        "batch": 4, "crop": 48, "resolution": "full", "model": "test_resnet", "weights": "none",
        "workers": 0,
        "validate-every": 1, "save-every": 9, "precision": "fp32", "accelerator": "cpu",
        "devices": devices, "learning-rate": 0.001, "warm-up": 0, "ramp": 0,
        "optimiser": "sgd",
    }  # fmt: skip
    if method_class(str(changes.get("method", "s5mars")))().needs.pool:
        settings |= {"alignment": 0.9, "thresholds": "flexmatch"}
    settings |= {key.replace("_", "-"): value for key, value in changes.items()}
    return ["train", *(f"--{key}={value}" for key, value in settings.items())]


@pytest.fixture(scope="module")
def runs(folder: Path) -> Path:
    """Each method with two processes and with one; and S5Mars stopped and gone on with."""
    one, two = (
        [
            arguments(folder, f"{name}_{n}", devices=n, method=name, **EXTRA.get(name, {}))
            for name in METHODS
        ]
        for n in (1, 2)
    )
    two.append([STOP, *arguments(folder, "stopped", devices=2, method="s5mars")])
    two.append(["train", "--resume", str(folder / "stopped")])
    assert together(two, folder) == ["", ""]
    for command in one:
        assert main(command) == 0
    return folder


def history(run: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((run / "metrics.json").read_text())["history"]
    return found


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_train_what_one_does(runs: Path, name: str) -> None:
    tolerance = TOLERANCE.get(name, 1e-4)
    one, two = history(runs / f"{name}_1"), history(runs / f"{name}_2")
    assert [entry["step"] for entry in two] == list(range(1, STEPS + 1))
    for expected, found in zip(one, two, strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=tolerance)
        assert found["terms"] == pytest.approx(expected["terms"], rel=tolerance)
        assert found["shares"] == pytest.approx(expected["shares"], abs=tolerance)
        assert all(expected["terms"].values())


def test_scores_count_every_pixel_of_an_uneven_split_once(runs: Path) -> None:
    images = (runs / "scenes" / "splits" / "val.txt").read_text().split()
    assert len(images) % 2  # one process has an image more
    for expected, found in zip(history(runs / "s5mars_1"), history(runs / "s5mars_2"), strict=True):
        one, two = expected["validation"], found["validation"]
        support = {name: c["support"] for name, c in one["classes"].items()}
        assert {name: c["support"] for name, c in two["classes"].items()} == support
        assert sum(support.values()) > 0
        assert two["pixel_accuracy"] == pytest.approx(one["pixel_accuracy"], abs=0.5)


def test_the_second_process_writes_nothing_and_says_nothing(runs: Path) -> None:
    assert (runs / "written_1").read_text() == ""
    assert "s5mars_2/.metrics.json." in (runs / "written_0").read_text()  # before it is renamed
    assert (runs / "said_1").read_text().strip() == ""


def test_a_signal_to_one_process_stops_both_and_the_run_goes_on_as_if_unbroken(
    runs: Path,
) -> None:
    assert "stopped by a signal to another process after step 1" in (runs / "said_0").read_text()
    broken, unbroken = (
        torch.load(runs / name / "last.ckpt", weights_only=True) for name in ("stopped", "s5mars_2")
    )
    assert broken["global_step"] == unbroken["global_step"] == STEPS
    torch.testing.assert_close(broken["state_dict"], unbroken["state_dict"])
    for expected, found in zip(history(runs / "s5mars_2"), history(runs / "stopped"), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"])


def as_module() -> None:
    """As ``python -m s5mars``, which Fabric repeats for the second process."""
    sys.modules["__main__"].__spec__ = find_spec("s5mars.__main__")


def test_a_killed_process_ends_the_run_with_one_line_and_a_checkpoint(folder: Path) -> None:
    command = arguments(
        folder, "lost", devices=2, method="supervised", steps=100_000, validate_every=100_000,
        save_every=1,
    )  # fmt: skip
    err = folder / "lost.err"
    process = start_command(command, err=err, before=as_module)
    saved = folder / "lost" / "last.ckpt"
    deadline = time.monotonic() + 500
    while not saved.is_file() and process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert process.is_alive(), err.read_text()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 1
    os.kill(int(children[0]), signal.SIGKILL)
    process.join(120)
    assert process.exitcode == 2
    said = err.read_text()
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("s5mars: ")]
    said = "ended by SIGKILL, perhaps out of memory"
    assert line.startswith(f"s5mars: the run has lost a process ({said}); step ")
    assert line.endswith(f"resume with: s5mars train --resume {folder / 'lost'}")
    assert torch.load(saved, weights_only=True)["global_step"] >= 1


def test_the_documentation_asks_for_options_that_exist() -> None:
    text = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
    commands = re.findall(r"s5mars train (--data.*)", text.replace("\\\n", " "))
    assert len(commands) == 3
    for command in commands:
        assert parse_training(command.split()).config.devices == 4


def test_processes_without_two_images_each_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(folder, "single", devices=2, batch=2)) == 2
    assert "--batch must be at least 4 (got" in capsys.readouterr().err
    assert not (folder / "single").exists()
