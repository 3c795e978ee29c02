"""SAM-CLS and SAN by the real command line: train, evaluate, predict, compare."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tinyclip
from proposals import tinysam
from s5mars.cli import main
from s5mars.comparison.general import GeneralWeights, missing_weights, table_vi_rows
from s5mars.comparison.grid import Cell
from s5mars.comparison.plan import Request, train_arguments
from s5mars.data.layouts import open_dataset
from s5mars.data.synthetic import write_synthetic
from s5mars.models import sam_cls
from s5mars.models.build import check_network
from s5mars.models.san import san
from s5mars.settings.networks import SamClsOptions
from s5mars.settings.parsing import parse_training

pytest.importorskip("transformers")
COMMON = {
    "labelled": 1.0, "batch": 2, "crop": 64, "workers": 0, "accelerator": "cpu", "devices": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two train images: an epoch is one step."""
    folder = write_synthetic(tmp_path_factory.mktemp("data") / "scenes", images=14, size=64)
    splits = folder / "splits"
    for name, count in (("train", 2), ("val", 1), ("test", 1)):
        lines = (splits / f"{name}.txt").read_text().split()[:count]
        (splits / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("weights")
    tinysam.save(root / "sam", "sam")
    tinyclip.save(root / "clip")
    torch.manual_seed(0)
    network = san(str(root / "clip"), open_dataset(scenes).taxonomy)
    state = {k: v.contiguous() for k, v in tinyclip.published(network).items()}
    save_file(state, root / "san.safetensors")
    return {"sam": root / "sam", "clip": root / "clip", "san": root / "san.safetensors"}


def options(**settings: object) -> list[str]:
    return [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]


def train(scenes: Path, out: Path, **settings: object) -> dict[str, Any]:
    arguments = options(data=scenes, out=out, **(COMMON | settings))
    assert main(["train", *arguments]) == 0
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


@pytest.fixture(scope="module")
def sam_run(
    scenes: Path, weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], list[int]]:
    """24 epochs of two images; and how often the encoder had run after each step."""
    out = tmp_path_factory.mktemp("runs") / "sam"
    runs: list[int] = []
    original = sam_cls.SamCls._encode

    def counted(self: sam_cls.SamCls, image: torch.Tensor) -> torch.Tensor:
        runs.append(len(image))
        return original(self, image)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam_cls.SamCls, "_encode", counted)
        metrics = train(
            scenes, out, method="supervised", model="sam-cls", weights=weights["sam"], epochs=24,
            validate_every=12, learning_rate=0.1, recipe="paper",
        )  # fmt: skip
    return out, metrics, runs


def test_sam_cls_encodes_each_crop_once_in_all_epochs(
    sam_run: tuple[Path, dict[str, Any], list[int]],
) -> None:
    out, metrics, runs = sam_run
    assert metrics["steps"] == 24
    # Two images, each as it is and mirrored, and the validation image; validated twice.
    assert len(runs) == 5
    assert len(list((out / "features").rglob("*.safetensors"))) == 5


def test_sam_cls_learns_and_its_encoder_does_not(
    sam_run: tuple[Path, dict[str, Any], list[int]], weights: dict[str, Path]
) -> None:
    out, metrics, _ = sam_run
    first, last = (entry["loss"] for entry in metrics["history"])
    assert last < 0.8 * first
    state, given = (
        load_file(out / "best.safetensors"),
        load_file(weights["sam"] / "model.safetensors"),
    )
    frozen = {k: v for k, v in given.items() if k.startswith("vision_encoder.")}
    assert len(frozen) > 20
    for key, value in frozen.items():
        kept = state[key.replace("vision_encoder.", "student.encoder.")]
        assert torch.equal(kept, value), key
    assert "SamModel sam (" in metrics["encoder_weights"]


def test_sam_cls_is_evaluated_and_predicts_without_its_weights(
    sam_run: tuple[Path, dict[str, Any], list[int]], scenes: Path, tmp_path: Path
) -> None:
    out, _, _ = sam_run
    run = shutil.copytree(out, tmp_path / "run")
    assert main(["evaluate", str(run), "--data", str(scenes), "--device", "cpu"]) == 0
    assert json.loads((run / "evaluation-test-full.json").read_text())["mIoU"] is not None
    maps = tmp_path / "maps"
    image = next((scenes / "images").iterdir())
    assert main(["predict", str(run), str(image), "--out", str(maps), "--device", "cpu"]) == 0
    assert list(maps.glob("*.png"))
    assert main(["report", str(run)]) == 0


def test_san_as_it_comes_and_fine_tuned(
    scenes: Path, weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    general = {
        "model": "san", "method": "san", "weights": weights["clip"],
        "side_adapter.checkpoint": weights["san"], "side_adapter.input_side": 64,
    }  # fmt: skip
    zero = train(scenes, tmp_path / "zero", steps=0, **general)
    assert zero["steps"] == 0 and zero["best"]["step"] == 0
    assert "not placed: ov_classifier.token_embedding.weight" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "zero"), "--data", str(scenes)]) == 0
    assert main(["report", str(tmp_path / "zero")]) == 0
    tuned = train(
        scenes, tmp_path / "ft", steps=10, recipe="san", learning_rate=1e-3, clip=1.0,
        validate_every=5, **general,
    )  # fmt: skip
    first, last = (entry["loss"] for entry in tuned["history"])
    assert last < first
    assert set(tuned["history"][0]["terms"]) == {"class", "mask", "dice"}
    before, after = (load_file(tmp_path / n / "best.safetensors") for n in ("zero", "ft"))
    frozen = {k for k in before if k.startswith(("student.clip.", "student.text"))}
    assert all(torch.equal(before[k], after[k]) for k in frozen)
    moved = {k for k in before.keys() - frozen if not torch.equal(before[k], after[k])}
    assert "student.adapter.queries" in moved and "student.background" in moved
    image = next((scenes / "images").iterdir())
    assert main(["predict", str(tmp_path / "ft"), str(image), "--out", str(tmp_path / "m")]) == 0


@pytest.mark.usefixtures("cells_here")
def test_table_vi(
    scenes: Path, weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x"
    command = ["compare", "--table-vi", *options(data=scenes, out=out, **COMMON), "--steps=2"]
    command += ["--side-adapter.input-side=64", "--scale=[1,1]"]
    assert main(command) == 0
    assert main(["table", str(out)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("| weights not available here |") == 3
    assert "zero_shot/san_ft 1 seed 0: weights not available here: --clip-weights" in shown
    assert main(["table", str(out), "--format", "csv"]) == 0

    command += [f"--sam-weights={weights['sam']}", f"--clip-weights={weights['clip']}"]
    command += [f"--san-weights={tmp_path / 'nowhere.pth'}"]
    assert main(command) == 0
    assert main(["table", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "| SAM-CLS | 1 |" in shown and shown.count("| weights not available here |") == 2
    assert "no weights file at" in shown
    assert "SAM-CLS changes" in shown and "scale none (fixed crops)" in shown
    cells = json.loads((out / "comparison.json").read_text())["cells"]
    assert [cell["status"] for cell in cells] == ["done", "unavailable", "unavailable"]


def test_the_rows_of_table_vi_are_runs_of_train(
    scenes: Path, weights: dict[str, Path], tmp_path: Path
) -> None:
    """What ``compare`` gives ``train``: the row's own settings, not those of DeepLabV3+."""
    given = GeneralWeights(**{name: str(path) for name, path in weights.items()})
    common = [
        "--deeplab.decoder=light",
        "--learning-rate=0.5",
        "--steps=7",
        "--scale=[1,1]",
        "--clip=3",
    ]
    request = Request(
        out=tmp_path, table_vi=True, weights=given,
        arguments=[f"--data={scenes}", "--san.points=5", "--s5mars.soft-weight=1", *common],
    )  # fmt: skip
    configs = {}
    for row in table_vi_rows(given, tmp_path):
        assert missing_weights(row, given) == ""
        cell = Cell(row, "1", "1.0", 3)
        settings = parse_training(train_arguments(request, row, cell, tmp_path / "run"))
        check_network(settings.config, settings.method)
        configs[row.title] = settings.config
    assert [c.steps for c in configs.values()] == [7, 0, 7]
    assert [c.learning_rate for c in configs.values()] == [0.5, 1e-4, 1e-4]
    assert [c.optimiser for c in configs.values()] == ["adamw", "adamw", "adamw"]
    assert {c.seed for c in configs.values()} == {3}
    assert configs["SAM-CLS"].network == SamClsOptions(features=tmp_path / "features")
    missing = missing_weights(table_vi_rows(given, tmp_path)[1], replace(given, clip="nowhere"))
    assert missing.startswith("weights not available here: nowhere: no such folder")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "sam-cls"}, "--model sam-cls requires --weights: a folder of SAM"),
        ({"model": "san"}, "--model san requires --weights: a folder of CLIP"),
        ({"model": "sam-cls", "method": "s5mars"}, "trains on labelled images only"),
        ({"model": "sam-cls", "scale": "[1.0,1.0]"}, "--model sam-cls has fixed crops"),
        ({"model": "sam-cls", "deeplab.decoder": "light"}, "it is for a timm encoder, not sam-cls"),
        (
            {"model": "resnet18", "method": "san"},
            "san requires --model san (got resnet18)",
        ),
        ({"side_adapter.checkpoint": "a.pth"}, "it is for --model san, not resnet50"),
        ({"model": "san", "weights": "clip", "steps": 0}, "requires a trained side adapter"),
        ({"model": "san", "weights": "nowhere"}, "nowhere: no such folder"),
        (
            {"model": "san", "weights": "nowhere", "freeze_norm": "true"},
            "--freeze-norm has no effect with --model san",
        ),
        (
            {"model": "sam-cls", "weights": "nowhere", "encoder_rate": 0.1},
            "--encoder-rate has no effect with --model sam-cls",
        ),
        ({"steps": 0}, "--steps must be above 0"),
    ],
)
def test_what_does_not_go_together_is_refused_and_leaves_nothing(
    settings: dict[str, object],
    words: str,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    every = COMMON | {"method": "supervised", "steps": 1, "out": tmp_path / "r"} | settings
    assert main(["train", *options(data=scenes, **every)]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_without_transformers_the_way_to_install_it_is_said(
    scenes: Path,
    weights: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    settings = COMMON | {"model": "san", "weights": weights["clip"], "steps": 1, "method": "san"}
    assert main(["train", *options(data=scenes, out=tmp_path / "r", **settings)]) == 2
    assert "pip install 's5mars[sam]'" in capsys.readouterr().err


def test_the_commands_of_the_documentation_are_commands() -> None:
    text = (Path(__file__).parents[2] / "docs" / "zero-shot.md").read_text(encoding="utf-8")
    lines = [line.split()[1:] for line in text.splitlines() if line.startswith("s5mars ")]
    assert [line[0] for line in lines] == ["train", "train", "train", "compare"]
    for line in lines[:3]:
        settings = parse_training(line[1:])
        check_network(settings.config, settings.method)
