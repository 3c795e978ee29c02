"""The real command line on tiny scenes: killed, continued, failed, retried, refused."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from apart import start_command
from cells import train_cells_here
from s5mars import evaluation
from s5mars.cli import main
from s5mars.comparison import runner
from s5mars.comparison.results import Comparison, read_comparison, write_comparison
from s5mars.data.synthetic import write_synthetic
from s5mars.training import class_biases

STEPS = 8


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("data") / "scenes", images=14, size=64)


def arguments(scenes: Path, out: Path, **changes: object) -> list[str]:
    settings: dict[str, object] = {
        "data": scenes, "labelled": 0.5, "steps": STEPS, "batch": 2, "crop": 48,
        "model": "test_resnet", "weights": "none", "workers": 0, "validate-every": 4,
        "save-every": 1, "warm-up": 0, "accelerator": "cpu", "devices": 1, "out": out,
    }  # fmt: skip
    settings |= {key.replace("_", "-"): value for key, value in changes.items()}
    return ["compare", *(f"--{key}={value}" for key, value in settings.items())]


TWO = ["--methods", "supervised", "s5mars", "--seeds", "0", "1"]


@pytest.fixture(scope="module")
def killed(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison killed while its second cell trains; the first one was there before."""
    out = tmp_path_factory.mktemp("results") / "x"
    with pytest.MonkeyPatch.context() as patch:
        train_cells_here(patch)
        assert main([*arguments(scenes, out), "--methods", "supervised", "--seeds", "0"]) == 0
    process = start_command([*arguments(scenes, out), *TWO])
    second = out / "cells" / "s5mars" / "0.5" / "seed-0"
    deadline = time.monotonic() + 300
    while not (second / "last.ckpt").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.join()
    time.sleep(0.5)
    left = (second / "last.ckpt").stat().st_mtime_ns
    time.sleep(1.0)  # several steps, each of which would save
    assert (second / "last.ckpt").stat().st_mtime_ns == left, "the cell outlived the comparison"
    return out


def without(settings: Mapping[str, Any], option: str) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != option}


def as_before(option: str, out: Path) -> None:
    """Turn comparison.json and the runs' config.yaml into those of a version without an option."""
    now = read_comparison(out)
    training = without(now.settings["training"], option)
    old = replace(now, settings={**now.settings, "training": training})
    cells = [replace(c, fingerprint=old.fingerprint(c.row, c.share)) for c in old.cells]
    write_comparison(out, replace(old, cells=tuple(cells)))
    for path in out.rglob("config.yaml"):
        path.write_text(yaml.safe_dump(without(yaml.safe_load(path.read_text()), option)))


def statuses(out: Path) -> dict[tuple[str, int], str]:
    cells = json.loads((out / "comparison.json").read_text())["cells"]
    return {(cell["row"], cell["seed"]): cell["status"] for cell in cells}


@pytest.mark.usefixtures("cells_here")
def test_killed_and_continued(
    killed: Path, scenes: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = statuses(killed)
    assert before == {
        ("supervised", 0): "done", ("s5mars", 0): "running",
        ("supervised", 1): "waiting", ("s5mars", 1): "waiting",
    }  # fmt: skip
    first = killed / "cells" / "supervised" / "0.5" / "seed-0"
    assert not (first / "last.ckpt").exists()
    written = {p: p.stat().st_mtime_ns for p in first.rglob("*") if p.is_file()}
    begun = killed / "cells" / "s5mars" / "0.5" / "seed-0" / "versions.json"
    written[begun] = begun.stat().st_mtime_ns

    assert main([*arguments(scenes, killed), *TWO]) == 0

    assert set(statuses(killed).values()) == {"done"}
    found = [*(p for p in first.rglob("*") if p.is_file()), begun]  # resumed, not started anew
    assert written == {p: p.stat().st_mtime_ns for p in found}
    assert not list(killed.rglob("last.ckpt"))
    # One store of object masks for all cells, whose settings count as those without it.
    assert {path.parent for path in killed.rglob("part-*.parquet")} == {killed / "objects"}
    shown = capsys.readouterr().out
    assert "4 cells requested, 1 already finished or failed, 3 to run: s5mars 0.5 seed 0," in shown
    assert "1 cell left, about" in shown

    assert main([*arguments(scenes, killed), *TWO]) == 0
    assert "0 to run: nothing" in capsys.readouterr().out

    # Killed between the score and its record: the score is taken over, nothing runs.
    whole = (killed / "comparison.json").read_text()
    content = json.loads(whole)
    content["cells"][1] |= {"status": "running", "mIoU": None}
    (killed / "comparison.json").write_text(json.dumps(content))
    assert main([*arguments(scenes, killed), *TWO]) == 0
    assert "already scored: s5mars 0.5 seed 0" in capsys.readouterr().out
    assert (killed / "comparison.json").read_text() == whole

    for form in ("md", "latex", "html", "csv"):
        assert main(["table", str(killed), "--format", form]) == 0
    assert "IoU hole" in capsys.readouterr().out
    figures = tmp_path / "figures"
    command = ["table", str(killed), "--figures", str(figures), "--images", "2"]
    assert main([*command, "--row", "supervised", "--out", str(tmp_path / "t.md")]) == 0
    names = ["curves.png", "predictions.png", "scores.png", "worst.png"]
    assert sorted(path.name for path in figures.iterdir()) == names
    assert "IoU by class" in (tmp_path / "t.md").read_text()


@pytest.mark.usefixtures("cells_here")
def test_a_cell_that_was_stopped_before_its_class_biases_gets_them(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_cells_here(monkeypatch)
    for module in (class_biases, evaluation.class_biases):
        monkeypatch.setattr(module, "FEWEST_IMAGES", 1)
    out = tmp_path / "x"
    command = [*arguments(scenes, out), "--methods", "supervised", "--seeds", "0"]
    assert main(command) == 0
    (best,) = out.glob("cells/*/*/*/best.json")
    whole = json.loads(best.read_text())
    best.write_text(json.dumps({k: v for k, v in whole.items() if k != "class_biases"}))
    (best.parent / "evaluation-test-full.json").unlink()
    comparison = read_comparison(out)
    write_comparison(
        out, replace(comparison, cells=(replace(comparison.cells[0], status="running"),))
    )
    assert main(command) == 0
    assert json.loads(best.read_text()) == whole and whole["class_biases"]


@pytest.mark.usefixtures("cells_here")
def test_a_row_that_is_the_whole_method_is_not_trained_again(
    killed: Path, scenes: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = shutil.copytree(killed, tmp_path / "x")
    as_before("partition_seed", out)
    command = [*arguments(scenes, out), "--ablation", "soft_labels", "--seeds", "0"]
    assert main([*arguments(scenes, out), "--methods", "s5mars", "--seeds", "0"]) == 0
    assert main(command) == 0
    said = "copied from the identical run s5mars 0.5 seed 0: soft_labels/with"
    assert said in capsys.readouterr().out
    found = json.loads((out / "comparison.json").read_text())["cells"]
    cells = {cell["row"]: cell for cell in found if cell["seed"] == 0}
    whole, with_soft, without = (
        cells[name] for name in ("s5mars", "soft_labels/with", "soft_labels/without")
    )
    assert with_soft["folder"] == whole["folder"] == "cells/s5mars/0.5/seed-0"
    assert with_soft["mIoU"] == whole["mIoU"]
    assert without["folder"] == "cells/soft_labels-without/0.5/seed-0"
    assert main(["table", str(out)]) == 0


def test_other_settings_are_refused(
    killed: Path, scenes: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = (killed / "comparison.json").read_text()
    fewer = shutil.copytree(scenes, tmp_path / "scenes")
    listed = fewer / "splits" / "train.txt"
    listed.write_text("".join(listed.read_text().splitlines(keepends=True)[1:]))
    for changes, said in (
        ({"steps": 3}, "training.steps: 8 there, 3 now"),
        ({"s5mars.soft-weight": 0.5}, "row s5mars.settings.s5mars.soft_weight: 1.0 there, 0.5 now"),
        ({"protocol": "paper"}, "evaluation.protocol: full there, paper now"),
        ({"data": fewer}, "data.splits.train.images: 8 there, 7 now"),
    ):
        assert main([*arguments(scenes, killed, **changes), *TWO]) == 2
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1 and said in shown and "choose another --out" in shown
    assert (killed / "comparison.json").read_text() == before


@pytest.mark.usefixtures("cells_here")
def test_a_failed_cell_and_its_retry(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(scenes, tmp_path / "scenes")
    out = tmp_path / "y"
    named = (data / "splits" / "train.txt").read_text().split()[:2]
    for number, name in enumerate(named):
        (tmp_path / f"{number}.txt").write_text(name)
    bad = data / "images" / f"{named[1]}.jpg"
    bad = bad if bad.exists() else bad.with_suffix(".png")
    whole = bad.read_bytes()
    bad.write_bytes(whole[:300])
    lists = ["--labelled", str(tmp_path / "1.txt"), str(tmp_path / "0.txt")]
    command = [*arguments(data, out, steps=1), "--methods", "supervised", *lists]
    assert main(command) == 2
    shown = capsys.readouterr()
    assert f"failed: supervised list-1 seed 0: {bad}" in shown.err
    assert shown.err.endswith(
        "s5mars: 1 of 2 cells failed, all others are done; repeat the command with --retry-failed "
        "to run it again\n"
    )
    cells = json.loads((out / "comparison.json").read_text())["cells"]
    assert [cell["status"] for cell in cells] == ["failed", "done"]
    assert any("one labelled image" in note for note in cells[1]["notes"])
    assert main(["table", str(out)]) == 0
    assert "Failed: supervised list-1 seed 0: " in capsys.readouterr().out

    assert main(command) == 2
    said = "2 already finished or failed (1 failed; --retry-failed runs them again), 0 to run"
    assert said in capsys.readouterr().out
    bad.write_bytes(whole)
    assert main([*command, "--retry-failed"]) == 0
    cells = json.loads((out / "comparison.json").read_text())["cells"]
    assert [cell["status"] for cell in cells] == ["done", "done"]
    assert cells[0]["reason"] == ""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--methods", "s5mras"], "unknown method 's5mras'; nearest first: s5mars, "),
        (["--ablation", "mixin"], "unknown ablation 'mixin'; nearest first: mixing, "),
        ([], "nothing to compare; give --methods (all, or names), --ablation"),
        (["--methods", "all", "--seed", "3"], "compare does not accept --seed; use --seeds"),
        (["--methods", "all", "--stepz", "3"], "unknown option --stepz; did you mean '--steps'"),
        (
            ["--methods", "all", "--labelled", "2"],
            "--labelled must be a fraction in (0, 1] or a list file (got 2)",
        ),
        (["--methods", "all", "--labelled", "no.txt"], "existing list file (got no.txt)"),
        (
            ["--methods", "supervised", "--s5mars.soft-wieght", "0.5"],
            "--s5mars.soft-wieght has no effect, because no row uses s5mars: leave it out",
        ),
        (["--methods", "san"], "needs a network of its own; compare it with --table-vi"),
        (
            ["--methods", "all", "--labelled", "0.1234567", "0.12345678"],
            "--labelled 0.1234567 and 0.12345678 are too close to each other; give one",
        ),
        (["--methods", "all", "--jobs", "0"], "--jobs must be at least 1 (got 0)"),
        (["--methods", "all", "--seeds", "-1"], "--seeds must be at least 0 (got -1)"),
        (["--methods", "all", "--select-on", "vall"], "no split 'vall'"),
    ],
)
def test_mistakes_before_anything_runs(
    more: list[str], said: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "z"
    assert main([*arguments(scenes, out), *more]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and said in shown
    assert not out.exists()


def test_no_other_folder_is_touched(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").touch()
    assert main([*arguments(scenes, tmp_path), *TWO]) == 2
    assert "contains files that are not a comparison" in capsys.readouterr().err


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Comparison]:
    """Comparisons as they would begin; nothing is run."""
    kept: list[Comparison] = []

    def finish(work: Any) -> Comparison:
        kept.append(work.comparison)
        return kept[-1]

    monkeypatch.setattr(runner._Work, "finish", finish)
    return kept


def test_an_ablation_is_compared_with_the_whole_method(
    scenes: Path, tmp_path: Path, planned: list[Comparison]
) -> None:
    command = [*arguments(scenes, tmp_path / "a"), "--ablation", "augin", "--seeds", "0", "1"]
    assert main(command) == 0
    (found,) = planned
    assert found.references == {"augin": "augin/std"}
    assert {row for row, _, _ in (cell.key for cell in found.cells)} == set(found.rows)
    assert found.cells[0].folder == "cells/augin-identity/0.5/seed-0"
    fields = found.rows["augin/efdm"]["settings"]
    assert fields["s5mars"]["swap"] == "efdm" and fields["training"] == {}


def test_fields_of_a_method_are_for_its_cells(
    scenes: Path, tmp_path: Path, planned: list[Comparison]
) -> None:
    more = ["--methods", "all", "--s5mars.soft-weight", "0.5", "--note", "by hand"]
    assert main([*arguments(scenes, tmp_path / "a"), *more]) == 0
    (found,) = planned
    assert found.rows["s5mars"]["settings"]["s5mars"]["soft_weight"] == 0.5
    assert found.note == "by hand" and found.references == {"methods": "supervised"}
    assert {"supervised", "s5mars"} <= found.rows.keys()
