"""The benchmarks of training run, at the smallest sizes; what they print there says nothing."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
import torch

import s5mars
from s5mars.cli import main
from s5mars.comparison.results import read_comparison
from s5mars.comparison.step import CostSettings

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
    for name in (
        "ablations", "annotator", "box", "domain", "gpu", "labels", "loader", "machine", "naive",
        "pairs", "scores", "shares", "step", "variants",
    ):  # fmt: skip
        sys.modules.pop(name, None)


@pytest.mark.slow
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


@pytest.mark.slow
def test_gpu_needs_nothing_but_the_four_libraries() -> None:
    absent = (
        "jsonargparse", "pyarrow", "pycocotools", "skimage", "tensorboard", "torchmetrics",
        "transformers",
    )  # fmt: skip
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


def test_a_cell_that_failed_and_is_done_now_is_copied(script: Any, tmp_path: Path) -> None:
    comparison, kept = tmp_path / "comparison.json", tmp_path / "kept.json"
    for status in ("failed", "done"):
        cell = {"row": "s5mars", "share": "1", "seed": 0, "status": status}
        comparison.write_text(json.dumps({"cells": [cell]}))
        script("grids").keep(comparison, kept)
        assert json.loads(kept.read_text())["cells"][0]["status"] == status


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
    assert float(plain.detach()) == pytest.approx(float(step.loss().detach()), rel=0.3)


@pytest.mark.slow
def test_box(script: Any, fake_data: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    data = fake_data.plain(tmp_path / "data", images=10)
    classes = ("soil", "bedrock", "sand", "big_rock")
    lines = [f"  - {{name: {name}, ids: [{i}, {4 + i}]}}" for i, name in enumerate(classes)]
    ignored = "name: four\nignore: [8, 9, 255]\nclasses:\n"
    (data / "dataset.yaml").write_text(ignored + "\n".join(lines) + "\n")
    run = tmp_path / "run"
    sizes = ["--steps=2", "--batch=2", "--crop=48", "--model=mobilenetv3_small_050"]
    sizes += ["--weights=none", "--workers=0"]
    words = [
        "train",
        "--data",
        str(data),
        "--method=supervised_averaged",
        *sizes,
        "--weights=none",
        "--workers=0",
    ]
    assert main([*words, "--out", str(run)]) == 0
    versions = json.loads((run / "versions.json").read_text())
    versions["command"] = ["s5mars", *words, "--out", str(run)]
    (run / "versions.json").write_text(json.dumps(versions))
    out = tmp_path / "box" / "navcam"
    box = script("box")
    photographs = box.domain_shares.photographs()
    assert len(photographs) > 10
    box.domain_shares.photographs = lambda: photographs[:2]
    box.main([str(run), "--data", str(data), "--gold", str(data), "--resolution", "64",
              "--unlike", f"own images={data / 'images'}", "--out", str(out)])  # fmt: skip

    assert {path.name for path in out.iterdir()} == {"best.safetensors", "best.json", "card.md"}
    assert str(tmp_path) not in (out / "best.json").read_text()
    full, half = s5mars.load(run), s5mars.load(out)
    assert str(half.resolution) == "64" and half.temperature != 1
    weights = half.model.state_dict()
    for key, value in full.model.state_dict().items():
        assert torch.allclose(weights[key], value, rtol=1e-3, atol=1e-6), key
    assert (out / "best.safetensors").stat().st_size < (run / "best.safetensors").stat().st_size / 3
    card = (out / "card.md").read_text()
    for line in (
        "# navcam\n",
        's5mars.load("navcam")',
        "s5mars train --data DATA --method=supervised_averaged",
        "--out RUN\npython benchmarks/box.py RUN --name navcam --data DATA --gold GOLD",
        "| SegFormer-B2 | 83.4 | 98.1 | 97.8 | 94.0 | 95.8 | 45.9 | 27.4 |",
        "| ONNX int8 | ",
        "| own images | 10 |",
        "| photographs of scikit-image, in grey | ",
        "| below 16 | ",
        "public domain (CC0 1.0)",
    ):
        assert line in card, line
    assert str(tmp_path) not in card


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


def test_scores_by_labels_from_two_results(script: Any, tmp_path: Path) -> None:
    results = BENCHMARKS.parent / "docs" / "results"
    few, more, other = (
        results / f"{name}.json"
        for name in ("ai4mars-fiftieth-class-biases", "ai4mars-eighth", "marsscapes-eighth")
    )
    labels = script("labels")
    labels.main([str(few), str(more), "--out", str(tmp_path / "labels.png")])
    assert (tmp_path / "labels.png").stat().st_size > 10_000
    joined = labels.joined([read_comparison(few), read_comparison(more)])
    lines = {line.title: line for line in joined}
    for title in ("S5Mars", "Supervised, averaged"):
        assert lines[title].scores.keys() == {86, 535} and len(lines[title].scores[86]) == 5
    with pytest.raises(ValueError, match="not scored on the same images"):
        labels.joined([read_comparison(few), read_comparison(other)])


def test_differences_in_the_docs_are_those_of_the_result_files(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = BENCHMARKS.parent / "docs"
    page = (docs / "results.md").read_text()
    for name in ("ai4mars-eighth", "ai4mars-all"):
        scores = tmp_path / "scores.json"
        shutil.copy(docs / "results" / f"{name}-scores.json", scores)
        shutil.copy(docs / "results" / f"{name}.json", tmp_path / "comparison.json")
        script("scores").main([str(tmp_path), "--gold", "ai4mars256_gold", "--out", str(scores)])
        shown = capsys.readouterr().out
        assert shown.count("| mIoU |") == 4
        # The text gives the last table in words.
        shown = shown[: shown.index("ai4mars256_gold, without class biases")]
        for line in re.findall(r"^\|.*(?:mIoU|accuracy|IoU of).*$", shown, re.MULTILINE):
            numbers = line.partition(" | ")[2]
            assert numbers in page, line
    class_biases, methods = "ai4mars-fiftieth-class-biases", "ai4mars-fiftieth-methods"
    for names, rows in (
        (["ai4mars-fiftieth"], []),
        ([class_biases], []),
        ([class_biases, methods], ["--rows", "s5mars", "supervised"]),
        ([class_biases, methods], ["--rows", "u2pl", "supervised_averaged"]),
        (["ai4mars-fiftieth-partition-1"], []),
        (["ai4mars-eighth"], ["--rows", "s5mars", "supervised"]),
        (["marsscapes-eighth"], []),
        (["marsscapes-eighth"], ["--rows", "s5mars", "supervised"]),
        (["marsscapes-eighth-second-seeds"], []),
    ):
        script("pairs").main([*(str(docs / "results" / f"{name}.json") for name in names), *rows])
        shown = capsys.readouterr().out
        lines = re.findall(r"^\| (?:mIoU|pixel|IoU of).*$", shown, re.MULTILINE)
        assert len(lines) >= 6, names
        for line in lines:
            assert line.partition(" | ")[2] in page, f"{names}: {line}"
    for name in ("labels", "mixing", "augin"):
        script("ablations").main([str(docs / "results" / f"marsscapes-ablation-{name}.json")])
        lines = capsys.readouterr().out.splitlines()[2:]
        assert any("(whole)" in line for line in lines)
        for line in filter(None, lines):
            assert line in page, line
    for name in (class_biases, methods, "ai4mars-fiftieth-mean-teacher"):
        for result in read_comparison(docs / "results" / f"{name}.json").done():
            if result.seed == 0:
                ious = [entry["iou"] for entry in result.classes.values()]
                values = [result.mIoU, result.pixel_accuracy, *ious]
                assert " | ".join(f"{value:.1f}" for value in values) in page, result.name


def test_every_comparison_of_the_docs_can_be_read() -> None:
    paths = (BENCHMARKS.parent / "docs" / "results").glob("*.json")
    comparisons = [path for path in paths if not path.stem.endswith("-scores")]
    assert len(comparisons) > 15
    for path in comparisons:
        assert read_comparison(path).done(), path.name


def test_pairs_of_several_results(script: Any) -> None:
    results = BENCHMARKS.parent / "docs" / "results"
    few, more, other = (
        read_comparison(results / f"{name}.json")
        for name in ("ai4mars-fiftieth-class-biases", "ai4mars-eighth", "marsscapes-eighth")
    )
    pairs = script("pairs")
    half = tuple(cell for cell in few.cells if cell.seed < 2)
    rest = tuple(cell for cell in few.cells if cell.seed >= 2)
    split = [replace(few, cells=half), replace(few, cells=rest)]
    rows = "s5mars", "supervised_averaged"
    assert pairs.table(pairs.joined(split), *rows) == pairs.table(pairs.joined([few]), *rows)
    for second, reason in (
        (other, "not scored on the same images"),
        (few, "two results have a score of s5mars 0.02 seed 0"),
        (more, "has other labels"),
    ):
        with pytest.raises(ValueError, match=reason):
            pairs.joined([few, second])


@pytest.mark.usefixtures("cells_here")
def test_scores_of_a_further_data_set_and_without_class_biases(
    script: Any, fake_data: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    data, runs = fake_data.plain(tmp_path / "data", images=10), tmp_path / "runs"
    words = ["--steps=2", "--batch=2", "--crop=32", "--model=test_resnet", "--weights=none"]
    rows = ["--methods", "supervised", "mean_teacher", "--seeds", "0"]
    words = ["compare", f"--data={data}", f"--out={runs}", *words, "--workers=0", *rows]
    assert main([*words, "--split=val"]) == 0
    (run,) = runs.glob("cells/supervised/*/seed-0")
    best = json.loads((run / "best.json").read_text())
    classes = len(best["taxonomy"]["classes"])
    entry = {"values": [0.0] * (classes - 1) + [9.0], "share": 1.0}
    best["class_biases"] = {"student": entry}
    (run / "best.json").write_text(json.dumps(best))
    capsys.readouterr()
    out = tmp_path / "scores.json"
    given = [str(runs), "--gold", str(data), "--out", str(out)]
    given += ["--rows", "supervised", "mean_teacher"]
    scores, scored = script("scores"), []
    evaluate = scores.evaluate

    def counted(*arguments: Any, **settings: Any) -> dict[str, Any]:
        scored.append(settings["split"])
        return cast("dict[str, Any]", evaluate(*arguments, **settings))

    monkeypatch.setattr(scores, "evaluate", counted)
    scores.main(given)
    first = capsys.readouterr().out
    found = {
        (entry["row"], entry["scored_on"], entry["class_biases"]): entry
        for entry in json.loads(out.read_text())["scores"]
    }
    assert len(found) == 6
    ious = {key: entry["iou"] for key, entry in found.items() if key[0] == "supervised"}
    assert ious["supervised", "data", False] != ious["supervised", "data", True]
    assert ious["supervised", "data", False] == ious["supervised", "data val", False]
    assert sorted(scored) == ["test", "test", "test", "val"]  # one model has class biases
    scores.main(given)  # nothing is left to score
    assert capsys.readouterr().out == first[first.index("\ndata val\n") :]
