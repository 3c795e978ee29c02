"""Training where few images are labelled: all of them train, and cross-validation gives a score."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

import s5mars
from s5mars.classes import IGNORE, Class, Taxonomy
from s5mars.cli import main
from s5mars.data.dataset import way_to_score
from s5mars.data.layouts.files import read_names
from s5mars.evaluation.confusion import Confusion
from s5mars.training.domain import has_domain
from s5mars.training.folds import divide, summarise
from s5mars.training.loop import Loop
from s5mars.types import Sample


def arguments(data: Path, out: Path, **changes: object) -> list[str]:
    settings: dict[str, object] = {
        "data": data, "out": out, "steps": 4, "batch": 2, "crop": 32, "model": "test_resnet",
        "weights": "none", "workers": 0, "validate-every": 2, "resolution": "full",
    }  # fmt: skip
    settings |= {key.replace("_", "-"): value for key, value in changes.items()}
    return ["train", *(f"--{key}={value}" for key, value in settings.items())]


def metrics_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return found


@pytest.mark.parametrize(
    ("images", "method"), [(1, "s5mars"), (1, "supervised"), (5, "self_training")]
)
def test_all_labels_train_and_the_last_checkpoint_is_kept(
    images: int,
    method: str,
    tmp_path: Path,
    fake_data: ModuleType,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, run = fake_data.plain(tmp_path / "data", images=images, splits=False), tmp_path / "run"
    before = sorted(data.rglob("*"))
    assert main(arguments(data, run, method=method, steps=12)) == 0
    assert sorted(data.rglob("*")) == before
    metrics = metrics_of(run)
    assert (metrics["labelled_images"], metrics["selection_images"]) == (images, 0)
    assert metrics["split_for_selection"] is None and metrics["kept"] == "last"
    assert metrics["best"]["step"] == metrics["total_steps"] == metrics["steps"]
    assert metrics["best"]["mIoU"] is None
    assert yaml.safe_load((run / "config.yaml").read_text())["keep"] == "last"
    shown = capsys.readouterr()
    assert "it/s" not in shown.err and "image/s" not in shown.err  # no bar outside of a terminal
    way = way_to_score(images)
    assert ("--folds 5`" in way) == (images == 5)
    assert f"no score, since no labelled image was set aside: {way}" in shown.out
    assert shown.out.endswith(f"next: s5mars predict {run} IMAGES --out maps\n")
    assert s5mars.load(run).predict(np.zeros((40, 48, 3), np.uint8)).shape == (40, 48)
    assert main(["train", "--resume", str(run)]) == 0
    shown = capsys.readouterr().out
    assert f"{run} is finished; next: s5mars predict {run} IMAGES --out maps\n" in shown
    assert main(["report", str(run)]) == 0
    page = re.sub("</?span[^>]*>", "", (run / "report.html").read_text())
    assert "There is no score, because no labelled image was set aside." in page
    assert f"so there is no score: {way}." in page
    assert "on the val split" not in page and 'id="classes"' not in page and "<dd>–" not in page
    assert (
        "Images whose labels the run was trained on." in page and "Images without labels." in page
    )
    assert main(["evaluate", str(run)]) == 2
    assert "no split 'test', only train" in capsys.readouterr().err


def test_a_run_without_val_is_resumed_even_if_there_is_one_now(
    tmp_path: Path, fake_data: ModuleType
) -> None:
    data, run = fake_data.plain(tmp_path / "data", images=4, splits=False), tmp_path / "run"
    assert main(arguments(data, run)) == 0
    (run / "metrics.json").unlink()
    fake_data.write_split(data, "train", ["sol_000"])
    fake_data.write_split(data, "val", ["sol_001"])
    assert main(["train", "--resume", str(run)]) == 0
    metrics = metrics_of(run)
    assert (metrics["labelled_images"], metrics["selection_images"]) == (4, 0)


def test_settings_that_need_val_say_so(
    tmp_path: Path, fake_data: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = fake_data.plain(tmp_path / "data", images=4, splits=False), tmp_path / "run"
    assert main(arguments(data, run, keep="after-warm-up")) == 2
    assert "--keep after-warm-up chooses on the val split, which" in capsys.readouterr().err
    assert main(arguments(data, run, select_on="test")) == 2
    assert "no split 'test', only train" in capsys.readouterr().err
    assert not run.exists()


def test_classes_that_val_does_not_show_are_named(
    tmp_path: Path, fake_data: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    data, run = fake_data.plain(tmp_path / "data"), tmp_path / "run"
    assert main(arguments(data, run, method="supervised")) == 0
    assert "No labelled pixel of bedrock in the val split: this class does not" in caplog.text
    assert "bedrock in the val split" in " ".join(note["text"] for note in metrics_of(run)["notes"])


# --- folders that move ------------------------------------------------------------------------


def test_a_run_is_read_from_any_directory_and_after_a_move(
    tmp_path: Path,
    fake_data: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_data.plain(tmp_path / "here" / "data")
    (tmp_path / "here" / "some.txt").write_text("sol_000\nsol_001\n")
    monkeypatch.chdir(tmp_path / "here")
    assert main(arguments(Path("data"), Path("run"), labelled="some.txt")) == 0
    config = yaml.safe_load((tmp_path / "here" / "run" / "config.yaml").read_text())
    assert config["data"] == str(tmp_path / "here" / "data")
    assert config["labelled"] == str(tmp_path / "here" / "some.txt")
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.move(tmp_path / "here" / "run", tmp_path / "moved"))
    assert main(["evaluate", str(run)]) == 0
    assert f"of {tmp_path / 'here' / 'data'} (3 images" in capsys.readouterr().out
    data = Path(shutil.move(tmp_path / "here" / "data", tmp_path / "new"))
    (run / "metrics.json").rename(run / "kept.json")
    gone = f"{run} was trained on {tmp_path / 'here' / 'data'}, which does not exist: give"
    for command in (
        ["train", "--resume", str(run)],
        ["evaluate", str(run)],
        ["calibrate", str(run)],
    ):
        assert main(command) == 2
        assert f"{gone} the folder with --data" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), f"--data={data}"]) == 0
    assert metrics_of(run)["data"] == str(data)
    assert yaml.safe_load((run / "config.yaml").read_text())["data"] == str(data)
    assert main(["report", str(run)]) == 0
    assert "cannot be shown" not in (run / "report.html").read_text()


def test_lists_from_elsewhere_stay_with_the_run(
    tmp_path: Path, fake_data: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = fake_data.plain(tmp_path / "data", splits=False), tmp_path / "run"
    lists = tmp_path / "lists" / "splits"
    for split, names in (("train", ["sol_000", "sol_003"]), ("test", ["sol_001"])):
        fake_data.write_split(lists.parent, split, names)
    assert main(arguments(data, run, splits=lists)) == 0
    assert metrics_of(run)["labelled_images"] == 2
    assert main(["evaluate", str(run)]) == 0
    assert "(1 images" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--split=train"]) == 0
    assert "trained on the labels of 2 of these images, so the score" in capsys.readouterr().out
    lists.rename(tmp_path / "gone")
    assert main(["evaluate", str(run)]) == 2
    assert f"with the lists in {lists}, which does not exist: give" in capsys.readouterr().err
    assert main(["evaluate", str(run), f"--splits={tmp_path / 'gone'}"]) == 0
    assert not (data / "splits").exists()


# --- cross-validation -------------------------------------------------------------------------


def test_folds_score_every_image_once_by_a_run_that_has_not_seen_it(
    tmp_path: Path,
    fake_data: ModuleType,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    data, out = fake_data.plain(tmp_path / "data", images=5, splits=False), tmp_path / "runs"
    assert main(arguments(data, out, folds=3)) == 0
    shown = capsys.readouterr()
    assert "next: " not in shown.out and "To train on all labelled images: s5mars" in shown.out
    tested: list[str] = []
    for number in (1, 2, 3):
        fold = out / f"fold-{number}"
        test = read_names(out / "lists" / f"fold-{number}" / "test.txt")
        for stream in ("labelled", "pool"):
            assert not set(test) & set(read_names(fold / "splits" / f"{stream}.txt"))
        assert len(read_names(fold / "splits" / "labelled.txt")) == 5 - len(test)
        evaluation = json.loads((fold / "evaluation-test-full.json").read_text())
        assert [entry["name"] for entry in evaluation["per_image"]] == test
        assert evaluation["protocol"]["images_of_training"] == 0
        tested += test
    assert sorted(tested) == [f"sol_{i:03d}" for i in range(5)]
    summary = json.loads((out / "folds.json").read_text())
    mean, spread = summary["mIoU"]["mean"], summary["mIoU"]["standard_deviation"]
    assert f"mIoU {mean:.2f} ± {spread:.2f} % (mean ± standard deviation over 3 folds)" in shown.out
    assert "over all 5 images together" in shown.out
    assert "scored on the images of its fold, and trained on those of the others" in shown.out
    assert "Frames of one place may be in two folds" in caplog.text
    assert {path.parent for path in out.rglob("part-*.parquet")} == {out / "objects"}
    assert not (data / "splits").exists()
    given, pool = tmp_path / "given", tmp_path / "pool.txt"
    pool.write_text("sol_000\nsol_001\nsol_002\nsol_003\n")
    changes = {"steps": 1, "objects": out / "objects", "pool": pool}
    assert main(arguments(data, given, folds=2, **changes)) == 0
    assert not (given / "objects").exists()
    for number in (1, 2):
        test = set(read_names(given / "lists" / f"fold-{number}" / "test.txt"))
        used = read_names(given / f"fold-{number}" / "splits" / "pool.txt")
        assert set(used) == set(read_names(pool)) - test


def test_folds_stopped_after_the_last_step_of_one_go_on_and_complete_it(
    tmp_path: Path,
    fake_data: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The signal comes when everything is scored; what is measured last is still missing."""
    data, out = fake_data.plain(tmp_path / "data", images=4, splits=False), tmp_path / "runs"
    save = Loop._save

    def save_and_stop(self: Loop) -> None:
        save(self)
        if self.module.step == self.module.total_steps:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_save", save_and_stop)
        assert main(arguments(data, out, folds=2, method="supervised")) == 130
    said = capsys.readouterr().err
    assert "stopped by SIGINT after step 4 of 4, saved; resume with" in said
    assert f"--resume {out}\n" in said
    assert not (out / "fold-2").exists() and not has_domain(out / "fold-1")
    assert main(["train", "--resume", str(out)]) == 0
    assert has_domain(out / "fold-1") and has_domain(out / "fold-2")
    assert "is finished" not in capsys.readouterr().out


def test_folds_are_resumed_wherever_they_are(
    tmp_path: Path, fake_data: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = fake_data.plain(tmp_path / "data", images=4, splits=False), tmp_path / "runs"
    assert main(arguments(data, out, folds=2)) == 0
    with pytest.raises(s5mars.UserError, match=r"is a cross-validation: .*fold-1"):
        s5mars.Run(out).report()
    expected = (out / "folds.json").read_text()
    (out / "folds.json").unlink()
    shutil.rmtree(out / "fold-2")
    moved = out.rename(tmp_path / "moved")
    # Scores of another split, which the user had measured before the fold was scored.
    scored = moved / "fold-1/evaluation-test-full.json"
    other = json.loads(scored.read_text()) | {"mIoU": 1.0}
    scored.with_name("evaluation-val-full.json").write_text(json.dumps(other))
    scored.unlink()
    kept = (moved / "fold-1" / "best.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert main(["train", "--resume", str(moved)]) == 0
    assert "fold 2 of 2" in capsys.readouterr().err
    assert (moved / "fold-1" / "best.safetensors").stat().st_mtime_ns == kept
    assert (moved / "folds.json").read_text() == expected
    # Moved data are given once.
    data = data.rename(tmp_path / "new")
    assert main(["train", "--resume", str(moved), f"--data={data}"]) == 0
    assert yaml.safe_load((moved / "config.yaml").read_text())["data"] == str(data)
    shutil.rmtree(moved / "fold-2")
    assert main(["train", "--resume", str(moved)]) == 0
    assert (moved / "folds.json").read_text() == expected


def test_folds_need_images_and_a_single_run(
    tmp_path: Path, fake_data: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = fake_data.plain(tmp_path / "data", images=3, splits=False), tmp_path / "runs"
    assert main(arguments(data, out, folds=5)) == 2
    assert "--folds 5 needs as many labelled images or more (got 3)" in capsys.readouterr().err
    assert main(arguments(data, out, folds=1)) == 2
    assert "--folds must be 0 or at least 2 (got 1)" in capsys.readouterr().err
    assert not out.exists()
    compare = ["compare", *arguments(data, out, folds=2)[1:], "--methods=supervised"]
    assert main(compare) == 2
    assert "--folds is for s5mars train" in capsys.readouterr().err


def test_images_of_one_sol_are_in_one_fold(caplog: pytest.LogCaptureFixture) -> None:
    names = [f"{sol:04d}ML0001930000102057E01_DXXX_{i}" for sol in range(6) for i in range(4)]
    samples = [Sample(name, Path(name)) for name in names]
    areas = np.random.default_rng(0).integers(1, 100, (24, 3))
    parts = divide(samples, areas, 3, seed=0)
    assert sorted(s.name for part in parts for s in part) == names
    sols = [{s.name[:4] for s in part} for part in parts]
    assert [len(each) for each in sols] == [2, 2, 2] and len(set.union(*sols)) == 6
    assert not caplog.text
    divide(samples, areas, 7, seed=0)
    assert "divided individually" in caplog.text


def test_folds_show_the_rare_classes() -> None:
    areas = np.full((20, 3), 50)
    areas[:, 2] = [30 if i % 4 == 0 else 0 for i in range(20)]
    samples = [Sample(f"{i}", Path(f"{i}")) for i in range(20)]
    for seed in range(5):
        parts = divide(samples, areas, 5, seed=seed)
        assert [len(part) for part in parts] == [4] * 5
        assert sum(any(int(s.name) % 4 == 0 for s in part) for part in parts) >= 4


def test_the_spread_is_that_of_the_folds_with_a_class() -> None:
    taxonomy = Taxonomy("two", (Class("a", (0, 0, 0)), Class("b", (1, 1, 1))))
    matrices = [[[8, 2], [0, 0]], [[6, 0], [2, 2]]]
    scores = []
    for matrix in matrices:
        found = Confusion(2, matrix=matrix).to_dict(taxonomy)
        scores.append({**found, "confusion": matrix, "protocol": {"images": 2}})
    summary = summarise(scores, taxonomy)
    assert summary["classes"]["a"]["values"] == pytest.approx([80, 75])
    assert summary["classes"]["a"]["standard_deviation"] == pytest.approx(5 / 2**0.5)
    assert summary["classes"]["b"] == {
        "mean": pytest.approx(50), "standard_deviation": None, "values": [None, pytest.approx(50)],
    }  # fmt: skip
    assert summary["mIoU"]["mean"] == pytest.approx((80 + 62.5) / 2)
    together = Confusion(2, matrix=np.sum(matrices, 0))
    assert summary["together"]["mIoU"] == pytest.approx(100 * together.mIoU)
    assert IGNORE not in summary["images"]
