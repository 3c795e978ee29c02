"""The benchmarks of training run, at the smallest sizes; what they print there says nothing."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from s5mars.compare.step import CostSettings

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SMALLEST = ["--size", "64", "--model", "test_resnet", "--device", "cpu"]
TINY = CostSettings(model="test_resnet", crop=64, batch=2, rounds=1, device="cpu")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a benchmark as Python does that is given its path."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(threads)
    for name in ("annotator", "gpu", "loader", "machine", "naive", "shares", "step", "variants"):
        sys.modules.pop(name, None)


def test_gpu_on_a_cpu(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    sizes = [*SMALLEST, "--batch=2", "--steps=1", "--scenes=2"]
    script("gpu").main([*sizes, "--seconds", "0.1", "--workers", "0", "--out", str(out)])
    assert "failed" not in capsys.readouterr().out
    found = json.loads(out.read_text())
    for part in ("fp32", "bf16", "loader", "training from the loader"):
        assert found[part]["images/s"] > 0, part
    assert set(found["ratios"]) == {
        "s5mars / supervised", "s5mars / fixmatch", "s5mars / fixmatch without colours"
    }  # fmt: skip
    assert {"student backward", "moving average"} <= found["shares"].keys()
    assert "convolutions and products" in found["kernels"]
    assert found["projection"]["fp32"].endswith("the paper's RTX 3090")


def test_gpu_needs_nothing_but_the_four_libraries() -> None:
    absent = ("jsonargparse", "pyarrow", "pycocotools", "skimage", "tensorboard")
    code = (
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        f"for name in {absent}: sys.modules[name] = None\n"
        "import gpu, pathlib\n"
        "try: gpu.training_batches(None, pathlib.Path())\n"
        "except ImportError as error: print(error.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().partition(".")[0] in {"pyarrow", "pycocotools"}


def test_gpu_says_what_it_leaves_out(script: Any, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    script("gpu").main([*SMALLEST, "--minutes", "0", "--scenes", "1", "--out", str(out)])
    assert json.loads(out.read_text())["ratios"] == "left out: 0 s left"


def test_loader(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "loader.json"
    sizes = ["--images=2", "--side=128", "--crop=48", "--batch=2", "--workers=1", "--seconds=0.2"]
    script("loader").main([*sizes, "--out", str(out)])
    found = json.loads(out.read_text())
    assert found["same_bytes_and_order_as_without_workers"] is True
    assert found["most_images_a_second"] > 0
    assert 0 <= found["share_of_its_time_it_waited"] <= 1


def test_steps_are_timed_and_taken_apart(script: Any) -> None:
    step = script("step")
    seconds = step.timed_rounds(TINY)
    assert seconds.keys() == {*step.CANDIDATES, "bf16"}
    assert all(len(values) == 1 and values[0] > 0 for values in seconds.values())
    assert all(value >= 0 for value in step.parts(TINY).values())


def test_the_plain_step_has_the_objective_of_the_method(script: Any) -> None:
    naive, step = script("naive"), script("step").CANDIDATES["s5mars"](TINY)
    module = step.module
    plain = naive.naive_loss(step, module.student, module.teacher, module.method)
    # Other draws: near, not equal.
    assert float(plain.detach()) == pytest.approx(
        float(step.loss(module.student, module.teacher).detach()), rel=0.3
    )


def test_annotator(
    script: Any, tmp_path: Path, fake_data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = fake_data.plain(tmp_path / "data", size=(64, 64))
    given = [str(data), "--out", str(tmp_path / "out"), "--seeds=1", "--per-image=2", "--images=4"]
    script("annotator").main(given)
    first = capsys.readouterr().out
    results = (tmp_path / "out/results.jsonl").read_text().splitlines()
    assert [json.loads(line)["way"] for line in results] == ["queue", "random", "whole"]
    whole = json.loads(results[2])["points"]
    assert [point["images"] for point in whole] == [1, 2, 3, 4]
    assert whole[-1]["miou"] > 40
    script("annotator").main(given)  # nothing is left to do
    again = capsys.readouterr().out
    assert "seed 0" not in again
    assert again[again.index("mIoU in percent") :] == first[first.index("mIoU in percent") :]
    assert (tmp_path / "out/results.jsonl").read_text().splitlines() == results
