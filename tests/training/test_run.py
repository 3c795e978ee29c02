"""Whole runs on tiny scenes: what they leave behind, and that stopping them changes nothing."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import s5mars
from apart import start, start_command
from s5mars.classes import IGNORE
from s5mars.cli import main
from s5mars.data.crops import draw_crop
from s5mars.data.partition import draw_partition
from s5mars.data.read import open_label, open_pair
from s5mars.data.synthetic import write_synthetic
from s5mars.errors import DamagedFileError
from s5mars.evaluation.calibrate import calibrate
from s5mars.evaluation.command import evaluate
from s5mars.evaluation.confusion import Confusion
from s5mars.files.locking import locked
from s5mars.methods.s5mars import S5Mars
from s5mars.methods.supervised import Supervised
from s5mars.randomness import generator
from s5mars.settings.parsing import parse_training
from s5mars.training import loop, signals, validate
from s5mars.training.loop import Loop
from s5mars.training.module import SegmentationModule
from s5mars.training.record import Record
from s5mars.training.run import _build_module
from s5mars.training.streams import choose_streams, crop_settings

STEPS = 6
WEIGHTS = "encoder.safetensors"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    encoder = timm.create_model("test_resnet", num_classes=0)
    save_file(encoder.state_dict(), folder / WEIGHTS)
    return write_synthetic(folder / "scenes", images=14, size=64, unlabelled=2)


def arguments(scenes: Path, out: Path, **changes: object) -> list[str]:
    settings: dict[str, object] = {
        "data": scenes, "out": out, "labelled": 0.5, "steps": STEPS, "batch": 2, "crop": 48,
        "model": "test_resnet", "weights": scenes.parent / WEIGHTS, "workers": 0,
        "validate-every": 3, "save-every": 1, "warm-up": 0.4, "resolution": "full",
    }  # fmt: skip
    settings |= {key.replace("_", "-"): value for key, value in changes.items()}
    return ["train", *(f"--{key}={value}" for key, value in settings.items())]


@pytest.fixture(scope="module")
def unbroken(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    assert main(arguments(scenes, out)) == 0
    return out


def final_state(run: Path) -> dict[str, Any]:
    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == STEPS
    state: dict[str, Any] = checkpoint["state_dict"]
    return state


def assert_same_run(run: Path, reference: Path) -> None:
    state, expected = final_state(run), final_state(reference)
    assert state.keys() == expected.keys()
    different = [key for key in expected if not torch.equal(state[key], expected[key])]
    assert not different
    one, other = (json.loads((r / "metrics.json").read_text()) for r in (run, reference))
    assert one["history"] == other["history"]
    assert one["encoder_weights"] == other["encoder_weights"]


def test_a_run_leaves_everything_behind(unbroken: Path) -> None:
    for name in ("config.yaml", "metrics.json", "best.safetensors", "best.json", "last.ckpt"):
        assert (unbroken / name).is_file(), name
    metrics = json.loads((unbroken / "metrics.json").read_text())
    assert [entry["step"] for entry in metrics["history"]] == [3, 6]
    first, second = metrics["history"]
    assert first["terms"].keys() == {"supervised"}  # the warm-up learns from labels alone
    assert second["terms"].keys() == {"supervised", "hard", "soft"}
    rates = [5e-4 * (1 - step / STEPS) ** 0.9 for step in (2, 5)]  # steps count from 0
    assert [entry["learning_rate"] for entry in (first, second)] == pytest.approx(rates)
    assert set(first["validation"]["classes"]) == set(
        s5mars.open_dataset(metrics["data"]).taxonomy.names
    )
    warnings = [note["text"] for note in metrics["notes"] if note["kind"] == "warning"]
    assert "synthetic" in " ".join(warnings)
    assert (metrics["pool_from"], metrics["pool_crops"]) == (3, 2 * 3)
    notes = [note["text"] for note in metrics["notes"] if note["kind"] == "note"]
    assert "6 crops of the pool" in " ".join(notes)
    assert metrics["encoder_weights"].startswith(f"encoder weights: {WEIGHTS}; ")
    facts = json.loads((unbroken / "best.json").read_text())
    assert facts["training"]["method"] == "s5mars"
    assert facts["training"]["split_for_selection"] == "val"
    assert list((unbroken / "logs" / "tensorboard").glob("events.*"))
    assert (unbroken / "logs" / "csv" / "part_0" / "metrics.csv").is_file()
    labelled = (unbroken / "splits" / "labelled.txt").read_text().split()
    pool = (unbroken / "splits" / "pool.txt").read_text().split()
    assert 0 < len(labelled) < len(pool)
    assert set(labelled) < set(pool)


def test_the_loaded_model_predicts(unbroken: Path, scenes: Path) -> None:
    predictor = s5mars.load(unbroken)
    image = torch.randint(0, 255, (40, 70, 3), dtype=torch.uint8).numpy()
    labels = predictor.predict(image)
    assert labels.shape == (40, 70)
    assert labels.max() < len(predictor.taxonomy)


def test_the_same_seed_gives_the_same_run_whatever_the_workers(
    scenes: Path, unbroken: Path, tmp_path: Path
) -> None:
    assert main(arguments(scenes, tmp_path / "again", workers=2)) == 0
    assert_same_run(tmp_path / "again", unbroken)


def test_another_seed_gives_another_run(scenes: Path, unbroken: Path, tmp_path: Path) -> None:
    assert main(arguments(scenes, tmp_path / "other", seed=1)) == 0
    state, other = final_state(unbroken), final_state(tmp_path / "other")
    assert any(not torch.equal(state[key], other[key]) for key in state)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_resumed_run_equals_the_unbroken_one(
    scenes: Path,
    unbroken: Path,
    tmp_path: Path,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "stopped"
    score = Record.score
    before = signal.getsignal(number)

    def score_and_stop(self: Record, module: Any, **others: Any) -> None:
        score(self, module, **others)
        os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "score", score_and_stop)
        assert main(arguments(scenes, out, save_every=100)) == 128 + number
    assert f"--resume {out}" in capsys.readouterr().err
    assert torch.load(out / "last.ckpt", weights_only=True)["global_step"] == 3
    assert main(["train", "--resume", str(out)]) == 0
    assert_same_run(out, unbroken)
    assert signal.getsignal(number) == before


def test_the_kept_weights_are_those_of_the_record_if_a_resumed_run_scores_less(
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An error follows the best validation; the pool may be another one after it (--skip-bad)."""
    out = tmp_path / "out"
    right = iter([50, 60, 40, 20])  # of 100 pixels; the second is lost

    def scored(*_: Any, **others: Any) -> tuple[Confusion, Confusion]:
        part = next(right)
        matrix = np.diag([part, 1, 1, 1, 1, 1, 1, 1, 1]).astype(np.int64)
        matrix[0, 1] = 100 - part
        return Confusion(9, matrix=matrix), Confusion(9, matrix=matrix)

    objective = SegmentationModule.objective

    def failing(self: SegmentationModule, *given: Any) -> Any:
        if self.step == 4:
            raise DamagedFileError("an image is damaged")
        return objective(self, *given)

    monkeypatch.setattr("s5mars.training.record.validate", scored)
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "objective", failing)
        assert main(arguments(scenes, out, validate_every=2, save_every=3)) == 2
    assert main(["train", "--resume", str(out)]) == 0
    metrics, best = (json.loads((out / f"{name}.json").read_text()) for name in ("metrics", "best"))
    assert best["training"]["step"] == metrics["best"]["step"]
    assert best["training"]["validation"]["mIoU"] == metrics["best"]["mIoU"]


@pytest.mark.parametrize("step", [3, STEPS])
def test_a_signal_in_a_validation_ends_it_and_resumed_runs_begin_with_it(
    step: int,
    scenes: Path,
    unbroken: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "stopped"
    read: list[int] = []

    before = 0 if step == 3 else 3  # three images are validated

    def stop_at_the_first_image(*arguments: Any) -> Any:
        read.append(1)
        if len(read) > before:
            os.kill(os.getpid(), signal.SIGINT)
        return open_pair(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(validate, "open_pair", stop_at_the_first_image)
        for command in (arguments(scenes, out, save_every=100), ["train", "--resume", str(out)]):
            assert main(command) == 130
            said = capsys.readouterr().err
            assert f"stopped by SIGINT after step {step} of {STEPS}, saved" in said
    assert len(read) == before + 2
    saved = torch.load(out / "last.ckpt", weights_only=True)
    assert saved["global_step"] == step
    assert [entry["step"] for entry in saved["s5mars"]["history"]] == ([] if step == 3 else [3])
    assert main(["train", "--resume", str(out)]) == 0
    assert_same_run(out, unbroken)


@pytest.mark.parametrize("where", ["python", "one long call"])
def test_a_signal_gives_up_a_long_step_and_loses_nothing_else(
    where: str, scenes: Path, unbroken: Path, tmp_path: Path
) -> None:
    """A real process, whose step 3 takes a minute: within seconds it ends, with a checkpoint."""
    out, said = tmp_path / "slow", tmp_path / "said"
    process = start(train_slowly, arguments(scenes, out, save_every=0), where, said)
    deadline = time.monotonic() + 120
    while not (said.exists() and "in step 3" in said.read_text()) and process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    began = time.monotonic()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(30)
    seconds = time.monotonic() - began
    process.kill()
    assert seconds < 10
    assert process.exitcode == 2
    assert (
        "stopped by SIGINT in the middle of a step; step 2 is saved; resume with: s5mars train "
        f"--resume {out}"
    ) in said.read_text()
    assert torch.load(out / "last.ckpt", weights_only=True)["global_step"] == 2
    assert main(["train", "--resume", str(out)]) == 0
    assert_same_run(out, unbroken)


def train_slowly(words: list[str], where: str, said: Path) -> None:
    """Train, with steps that count as slow, and a third one that takes a minute."""
    losses = Supervised.losses

    def slow(self: Supervised, student: Any, teacher: Any, batch: Any, progress: Any) -> Any:
        if progress.step == 2:
            print("in step 3", file=sys.stderr, flush=True)
            if where == "python":
                for _ in range(600):
                    time.sleep(0.1)
            else:  # as a backward pass: Python's handler has to wait for its end
                libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
                libc.pthread_mutex_init(mutex, None)
                libc.pthread_mutex_lock(mutex)
                libc.pthread_mutex_lock(mutex)  # for ever, at no cost
        return losses(self, student, teacher, batch, progress)

    Supervised.losses = slow  # type: ignore[method-assign]
    loop.SLOW_SECONDS, signals.GRACE_SECONDS, signals.LAST_SECONDS = 0.0, 1.0, 1.0
    Loop._write_seconds = property(lambda self: 0.0, lambda self, value: None)  # type: ignore[assignment]
    with said.open("w", buffering=1) as file, redirect_stderr(file), redirect_stdout(file):
        raise SystemExit(main(words))


def test_kill_9_at_any_moment_leaves_a_whole_checkpoint(
    scenes: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    process = start_command(arguments(scenes, out))
    deadline = time.monotonic() + 300
    while not (out / "last.ckpt").is_file() and process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.join()
    assert main(["train", "--resume", str(out)]) == 0
    assert_same_run(out, unbroken)


def test_a_run_killed_before_its_lists_were_whole_is_resumed(
    unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    (out / "splits").mkdir(parents=True)
    for name in ("config.yaml", "splits/labelled.txt"):
        shutil.copy(unbroken / name, out / name)
    assert main(["train", "--resume", str(out)]) == 0
    assert_same_run(out, unbroken)
    for path in (unbroken / "splits").iterdir():
        assert (out / "splits" / path.name).read_text() == path.read_text()


def test_a_finished_run_that_kept_no_state_is_left_as_it_is(
    unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(unbroken, tmp_path / "run")
    (run / "last.ckpt").unlink()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert main(["train", "--resume", str(run)]) == 0
    assert "is finished" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}


class Trap:
    """Its unpickling leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("finished", [True, False])
def test_a_strangers_pickle_is_not_run(
    finished: bool, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, mark = shutil.copytree(unbroken, tmp_path / "run"), tmp_path / "mark"
    state = torch.load(run / "last.ckpt", weights_only=True)
    torch.save({**state, "trap": Trap(mark)}, run / "last.ckpt")
    if not finished:
        (run / "metrics.json").unlink()
    assert main(["train", "--resume", str(run)]) == (0 if finished else 2)
    if not finished:
        said = capsys.readouterr().err
        assert (
            "last.ckpt is damaged or was not written by s5mars (" in said and said.count("\n") == 1
        )
    assert not mark.exists()
    torch.load(run / "last.ckpt", weights_only=False)
    assert mark.exists()  # the trap works


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_a_checkpoint_is_said_in_words(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    (tmp_path / f".last.ckpt.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"the disk is full and .*last\.ckpt was not written"):
        loop.write_checkpoint(path, {"weights": torch.zeros(50_000)})
    assert not list(tmp_path.iterdir())


def test_a_run_leaves_no_thread(scenes: Path, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    assert main(arguments(scenes, tmp_path / "out", steps=1, validate_every=1)) == 0
    for thread in set(threading.enumerate()) - before:
        if thread.name != "tqdm_monitor":  # which tqdm has once a process
            thread.join(timeout=10)
            assert not thread.is_alive(), thread


class LoaderDiedError(RuntimeError):
    """Stands in for what torch's signal handler raises."""


def write_while_a_loader_process_dies(path: Path) -> None:
    close = torch.serialization._open_zipfile_writer_buffer.__exit__

    def die(*_: object) -> None:
        raise LoaderDiedError

    def close_later(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGUSR1)
        for _ in range(10):  # calls at which Python may run the handler
            os.getpid()
        close(*arguments)

    signal.signal(signal.SIGUSR1, die)
    torch.serialization._open_zipfile_writer_buffer.__exit__ = close_later
    try:
        loop.write_checkpoint(path, {"global_step": 3, "weights": torch.zeros(50_000)})
    except LoaderDiedError:
        raise SystemExit(7) from None


def test_a_signal_handler_that_raises_waits_for_the_checkpoint(tmp_path: Path) -> None:
    """It would leave torch's writer open, whose destructor then aborts the process."""
    process = start(write_while_a_loader_process_dies, tmp_path / "last.ckpt")
    process.join()
    assert process.exitcode == 7
    assert loop.read_checkpoint(tmp_path / "last.ckpt")["weights"].shape == (50_000,)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_two_resume_one_run(
    unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(unbroken, tmp_path / "run")
    (run / "metrics.json").unlink()
    with locked(run):
        assert main(["train", "--resume", str(run)]) == 2
    assert f"{run} is in use by process {os.getpid()}" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_ends_the_run(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "diverged"
    command = arguments(scenes, out, learning_rate=1e30, clip=0, precision="fp32")
    assert main(command) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"s5mars: the loss is not finite at step \d \(.*(weights|loss).*\): train again with a "
        r"smaller --learning-rate \(it is 1e\+30\); (nothing was saved yet|step \d is saved)",
        said,
    )
    for path in (out / "last.ckpt", out / "best.safetensors"):
        if path.is_file():
            state = torch.load(path, weights_only=True)["state_dict"]
            assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize("broken", ["term", "weight"])
def test_a_broken_state_replaces_no_good_one(
    broken: str,
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From step 4 on a term is NaN, as of bf16 perhaps, or a weight is, after a step too large."""
    out = tmp_path / "broken"
    losses, step = S5Mars.losses, SegmentationModule.finish_step

    def broken_losses(self: S5Mars, student: Any, teacher: Any, batch: Any, progress: Any) -> Any:
        terms = losses(self, student, teacher, batch, progress)
        if broken == "term" and progress.step >= 3:
            terms["soft"] = replace(terms["soft"], value=terms["soft"].value * torch.nan)
        return terms

    def broken_step(self: SegmentationModule) -> None:
        step(self)
        if broken == "weight" and self.step >= 4:
            with torch.no_grad():
                next(self.student.parameters()).fill_(torch.inf)

    monkeypatch.setattr(S5Mars, "losses", broken_losses)
    monkeypatch.setattr(SegmentationModule, "finish_step", broken_step)
    assert main(arguments(scenes, out, validate_every=1, precision="bf16")) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    named = "loss, soft" if broken == "term" else "weights"
    assert said.startswith(f"s5mars: the loss is not finite at step 4 ({named}): train again with")
    assert said.endswith(
        f"; set `precision: fp32` in {out / 'config.yaml'}; step 3 is saved; resume with: s5mars "
        f"train --resume {out}"
    )
    assert torch.load(out / "last.ckpt", weights_only=True)["global_step"] == 3
    assert json.loads((out / "best.json").read_text())["training"]["step"] <= 3


def test_labels_outside_the_partition_are_never_opened(
    scenes: Path, unbroken: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "scenes"
    shutil.copytree(scenes, copy)
    labelled = unbroken / "splits" / "labelled.txt"
    kept = set(labelled.read_text().split()) | set(
        (copy / "splits" / "val.txt").read_text().split()
    )
    spoilt = [mask for mask in (copy / "masks").iterdir() if mask.stem not in kept]
    assert spoilt
    for mask in spoilt:
        mask.write_bytes(b"not a mask")
    out = tmp_path / "run"
    weights = scenes.parent / WEIGHTS
    assert main(arguments(copy, out, labelled=labelled, weights=weights)) == 0
    assert_same_run(out, unbroken)


def test_supervised_needs_neither_pool_nor_teacher(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "supervised"
    assert main(arguments(scenes, out, method="supervised")) == 0
    assert not (out / "splits" / "pool.txt").exists()
    assert json.loads((out / "best.json").read_text())["networks"] == ["student"]
    assert not any(key.startswith("teacher") for key in final_state(out))


def test_the_next_command_is_said_below_a_folder_with_a_config_of_its_own(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("name: rocks\n")
    out = tmp_path / "run"
    assert main(arguments(scenes, out, method="supervised", steps=1)) == 0
    assert capsys.readouterr().out.endswith(f"next: s5mars evaluate {out}\n")


def test_a_used_folder_is_refused(
    scenes: Path, unbroken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(scenes, unbroken)) == 2
    assert f"{unbroken} has a finished run: choose another --out" in capsys.readouterr().err


def test_as_released_runs_and_says_that_it_chose_on_the_test_split(
    scenes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "released"
    command = arguments(scenes, out, recipe="as_released", steps=3)
    command.append("--deeplab.multi-grid=null")
    assert main(command) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["split_for_selection"] == "test"
    (note,) = (note for note in metrics["notes"] if note["kind"] == "selection")
    assert "test split" in note["text"]


@pytest.mark.parametrize("balanced", [0.0, 1.0])
def test_alignment_asks_for_what_plain_crops_show(scenes: Path, balanced: float) -> None:
    """Not for the areas of whole images, nor for what balanced crops show."""
    options = arguments(
        scenes, Path("unused"), balanced_crops=balanced, scale="[1.0,2.0]", alignment=0.98,
        alignment_coverage=0,
    )  # fmt: skip
    settings = parse_training(options[1:])
    dataset = s5mars.open_dataset(scenes)
    streams = choose_streams(dataset, settings.config, settings.method)
    assert streams.areas is not None
    counted = np.zeros(256)
    crops = crop_settings(settings.config)
    for sample in streams.labelled:
        label = open_label(sample, dataset.coding)
        for draw in range(200):
            rng = generator(0, sample.name, step=draw)
            crop = draw_crop(*label.size, settings=crops, rng=rng)
            counted += np.bincount(crop.mask(label, outside=IGNORE).ravel(), minlength=256)
    counted = counted[: len(dataset.taxonomy)]
    shares = streams.areas.sum(0) / streams.areas.sum()
    np.testing.assert_allclose(shares, counted / counted.sum(), atol=0.01)
    module = _build_module(settings.config, settings.method, dataset.taxonomy, streams)
    assert module.alignment is not None
    np.testing.assert_allclose(module.alignment.wanted, np.maximum(shares, 1e-3), atol=2e-3)


def test_the_resolution_is_a_part_of_the_model(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "half"
    assert main(arguments(scenes, out, resolution="1/2", steps=3)) == 0
    predictor = s5mars.load(out)
    assert str(predictor.resolution) == "1/2"
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    whole = s5mars.Predictor(predictor.model, predictor.taxonomy)
    small = whole.predict(predictor.resolution.resized(image), probabilities=True)[1]
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(small)[None], size=(64, 96), mode="bilinear", align_corners=False
    )[0]
    found = predictor.predict(image, probabilities=True)[1]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    # Whoever scores it sees what validation saw.
    scored = evaluate(out, data=scenes, split="val")
    metrics = json.loads((out / "metrics.json").read_text())
    assert scored["mIoU"] == pytest.approx(metrics["best"]["mIoU"], abs=1e-6)
    assert calibrate(out, data=scenes, split="val")["temperature"] > 0


def test_frozen_statistics_stay_those_of_the_start(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "frozen"
    given = arguments(scenes, out, method="supervised", freeze_norm="true")
    assert main(given) == 0  # with a validation of the same network half-way
    state, start = final_state(out), load_file(scenes.parent / WEIGHTS)
    means = [name for name in start if name.endswith("running_mean")]
    assert means
    assert all(torch.equal(state[f"student.encoder.{name}"], start[name]) for name in means)


def test_a_partition_is_not_of_the_seed(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def draw(*given: Any, seed: int, **others: Any) -> Any:
        drawn.append(seed)
        return draw_partition(*given, seed=seed, **others)

    monkeypatch.setattr("s5mars.training.streams.draw_partition", draw)
    for seed, partition in ((0, 0), (1, 0), (0, 7)):
        options = arguments(scenes, Path("unused"), seed=seed, partition_seed=partition)
        settings = parse_training(options[1:])
        choose_streams(s5mars.open_dataset(scenes), settings.config, settings.method)
    assert drawn == [0, 0, 7]


def test_the_labels_of_the_pool_can_be_withheld(scenes: Path) -> None:
    settings = parse_training([*arguments(scenes, Path("unused"))[1:], "--pool-labels=false"])
    streams = choose_streams(s5mars.open_dataset(scenes), settings.config, settings.method)
    assert streams.pool is not None
    assert all(sample.mask is None for sample in streams.pool)
