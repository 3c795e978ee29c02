"""The command: one JSON object or a table, the same numbers in the run folder."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from s5mars.classes import IGNORE, Taxonomy
from s5mars.errors import UserError
from s5mars.evaluation import command
from s5mars.evaluation.confusion import Confusion
from s5mars.models.checkpoint import LoadedModel
from s5mars.predict.inference import DEFAULT, Inference
from s5mars.report.evaluations import cross_rows

from .standin import TINTS, Tint, maps, sample

evaluate = partial(command.evaluate, inference=DEFAULT)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for seed, name in enumerate("abcdefg"):
        truth, predicted = maps(seed)
        if name == "c":
            truth[truth == 3] = 2
        sample(root, name, truth, predicted)
    for split, names in (("train", "a"), ("val", "b"), ("test", "c d e f g")):
        path = root / f"splits/{split}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(names.split()) + "\n")
    lines = ["name: tints", f"ignore: [{IGNORE}]", "classes:"]
    lines += [
        f"- {{name: {c.name}, ids: [{i}], color: '#0000{i:02x}'}}"
        for i, c in enumerate(TINTS.classes)
    ]
    (root / "dataset.yaml").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(
        command,
        "open_model",
        lambda path, *, network: LoadedModel(Tint(), TINTS, {}, network),
    )
    return folder


def expected(names: str) -> Confusion:
    total = Confusion(len(TINTS))
    for name in names:
        truth, predicted = maps("abcdefg".index(name))
        if name == "c":
            truth[truth == 3] = 2
        total.update(truth, predicted)
    return total


def test_json_is_one_object_with_the_contract(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    returned = evaluate(run, data=data, as_json=True, draws=50)
    printed = json.loads(capsys.readouterr().out)
    assert printed == returned == json.loads((run / "evaluation-test-full.json").read_text())
    truth = expected("cdefg")
    assert printed["mIoU"] == pytest.approx(100 * truth.mIoU)
    assert printed["mAcc"] == pytest.approx(100 * truth.mAcc)
    assert printed["pixel_accuracy"] == pytest.approx(100 * truth.pixel_accuracy)
    assert list(printed["classes"]) == list(TINTS.names)
    for i, entry in enumerate(printed["classes"].values()):
        assert set(entry) == {"iou", "acc", "support"}
        assert entry["iou"] == pytest.approx(100 * truth.iou[i])
        assert entry["support"] == truth.support[i]
    assert printed["confusion"] == truth.matrix.tolist()
    low, high = printed["intervals"]["mIoU"]
    assert 0 <= low <= high <= 100
    assert [entry["name"] for entry in printed["per_image"]] == [*"cdefg"]
    assert printed["per_image"][1]["mIoU"] == pytest.approx(100 * expected("d").mIoU)
    protocol = printed["protocol"]
    assert (protocol["name"], protocol["crop"], protocol["window"]) == ("full", None, 1024)
    assert (protocol["network"], protocol["split"], protocol["images"]) == ("teacher", "test", 5)
    assert protocol["ignored"] == [IGNORE]


def test_nan_never_reaches_the_json(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "splits/test.txt").write_text("c\n")  # no class 3 in its truth
    evaluate(run, data=data, as_json=True, draws=20)
    text = capsys.readouterr().out
    assert "NaN" not in text and "NaN" not in (run / "evaluation-test-full.json").read_text()
    found = json.loads(text)
    assert found["classes"]["ridge"] == {"iou": None, "acc": None, "support": 0}
    assert found["intervals"]["classes"]["ridge"] == [None, None]


def test_table_names_every_class_the_scores_and_the_protocol(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "splits/test.txt").write_text("c\n")
    found = evaluate(run, data=data, draws=20, protocol="paper")
    text = capsys.readouterr().out
    for name in TINTS.names:
        assert name in text
    assert f"{found['mIoU']:.2f} %" in text
    assert "left out of the means: ridge" in text
    assert "No interval: fewer than 5 images have labels" in text and " to –" not in text
    assert "protocol 'paper'" in text and "1024" in text
    assert str(run / "evaluation-test-paper.json") in text


def test_merged_classes_are_scored_as_one_and_do_not_overwrite(run: Path, data: Path) -> None:
    plain = evaluate(run, data=data, draws=20)
    merged = evaluate(run, data=data, draws=20, merge=["sky+ridge"])
    assert list(merged["classes"]) == ["sand", "rock", "sky+ridge"]
    assert merged["mIoU"] == pytest.approx(100 * expected("cdefg").merged([(2, 3)]).mIoU)
    assert json.loads((run / "evaluation-test-full.json").read_text()) == plain
    assert (run / "evaluation-test-full-sky+ridge.json").is_file()
    with pytest.raises(ValueError, match=r"sand, rock, sky, ridge by .*unknown class 'cloud'"):
        evaluate(run, data=data, merge=["sky+cloud"])
    with pytest.raises(ValueError, match="only one class"):
        evaluate(run, data=data, merge=["sky"])
    with pytest.raises(UserError, match=r"--merge sand\+rock\+sky\+ridge: fewer than two classes"):
        evaluate(run, data=data, merge=["sand+rock+sky+ridge"])
    for twice in (["sky+ridge", "ridge+sand"], ["ridge+ridge"]):
        with pytest.raises(UserError, match="join each class once, but 'ridge' occurs twice"):
            evaluate(run, data=data, merge=twice)


def test_a_single_class_is_scored(run: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Taxonomy("one", TINTS.classes[:1])
    monkeypatch.setattr(
        command, "open_model", lambda path, *, network: LoadedModel(Tint(1), one, {}, network)
    )
    others = f"[{IGNORE}, 1, 2, 3]"
    (data / "dataset.yaml").write_text(
        f"name: one\nignore: {others}\nclasses:\n- {{name: sand, ids: [0]}}\n"
    )
    assert evaluate(run, data=data, draws=20)["mIoU"] == 100


def test_other_networks_splits_and_folders_have_their_own_file(
    run: Path, data: Path, tmp_path: Path
) -> None:
    evaluate(run, data=data, split="val", network="student", draws=20)
    assert (run / "evaluation-val-full-student.json").is_file()
    evaluate(run, data=data, split="val", draws=20, out=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere/evaluation-val-full.json").is_file()
    assert "mIoU" in (tmp_path / "elsewhere/evaluation-val-full.txt").read_text()
    assert not list(run.glob("evaluation-val-full.*"))
    for file in (tmp_path / "scores.json", data / "dataset.yaml"):
        with pytest.raises(ValueError, match="--out must be a folder"):
            evaluate(run, data=data, out=file)


def open_model_of(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run contains a model that was trained on this data."""
    facts = {"training": {"data": str(data)}}
    monkeypatch.setattr(
        command, "open_model", lambda path, *, network: LoadedModel(Tint(), TINTS, facts, network)
    )


def test_scores_on_other_data_or_lists_leave_those_of_the_run_alone(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_model_of(data, monkeypatch)
    evaluate(run, data=data)
    own = (run / "evaluation-test-full.json").read_bytes()
    other = Path(shutil.copytree(data, tmp_path / "other"))
    evaluate(run, data=other)
    lists = Path(shutil.copytree(data / "splits", tmp_path / "lists b"))
    evaluate(run, data=data, splits=lists)
    assert (run / "evaluation-test-full.json").read_bytes() == own
    assert {path.name for path in run.glob("cross-*")} == {
        "cross-other-same-classes-test-full.json",
        f"cross-{data.name}-lists_b-same-classes-test-full.json",
    }
    of_lists, of_other = cross_rows(run)
    assert (of_other["data"], of_lists["data"]) == ("other", data.name)
    assert f"The split lists are those in {lists}." in of_lists["note"]
    # Another folder with the same name has a file of its own.
    same_name = Path(shutil.copytree(other, tmp_path / "far" / "other"))
    evaluate(run, data=same_name)
    evaluate(run, data=other)
    assert len(list(run.glob("cross-other*-same-classes-test-full.json"))) == 2
    # The same folder has one file, from whichever directory its path is relative.
    for folder in (other.parent, other):
        with monkeypatch.context() as context:
            context.chdir(folder)
            evaluate(run, data=Path(os.path.relpath(other)))
    assert len(list(run.glob("cross-other*-same-classes-test-full.json"))) == 2
    # Data that have moved, and lists that are those of the data, are those of training.
    (run / "evaluation-test-full.json").unlink()
    (run / "splits").mkdir()
    (run / "splits" / "labelled.txt").write_text("a\n")
    moved = data.rename(tmp_path / "moved")
    evaluate(run, data=moved, splits=moved / "splits")
    own = (run / "evaluation-test-full.json").read_bytes()
    assert len(list(run.glob("cross-*"))) == 3
    # Where the recorded folder does not exist, other data still are other data.
    (run / "splits" / "labelled.txt").write_text("elsewhere\n")
    evaluate(run, data=other)
    (run / "splits" / "labelled.txt").unlink()
    evaluate(run, data=other)
    assert (run / "evaluation-test-full.json").read_bytes() == own
    assert len(list(run.glob("cross-*"))) == 3


def test_data_of_the_same_name_have_their_own_files_in_another_folder_too(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_model_of(data, monkeypatch)
    others = [Path(shutil.copytree(data, tmp_path / part / "other")) for part in ("near", "far")]
    out = tmp_path / "scores"
    for other in (*others, others[0]):
        evaluate(run, data=other, draws=20, out=out)
    found = [json.loads(path.read_text())["protocol"]["data"] for path in out.glob("*.json")]
    assert sorted(found) == sorted(map(str, others))
    assert len(list(out.glob("*.txt"))) == 2


def test_abstaining_is_refused(run: Path, data: Path) -> None:
    with pytest.raises(ValueError, match=r"evaluate without abstain \(got 0.5\)"):
        evaluate(run, data=data, inference=Inference(abstain=0.5))
    assert not list(run.iterdir())


def test_windows_do_not_change_the_score(run: Path, data: Path) -> None:
    scores = [
        evaluate(run, data=data, inference=Inference(window=w, batch=b), draws=20)["confusion"]
        for w, b in ((1024, 1), (32, 3))
    ]
    assert scores[0] == scores[1]


def test_another_taxonomy_is_refused_naming_both(
    run: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped = Taxonomy("swapped", tuple(reversed(TINTS.classes)))
    monkeypatch.setattr(
        command,
        "open_model",
        lambda path, *, network: LoadedModel(Tint(), swapped, {}, network),
    )
    with pytest.raises(ValueError, match=r"sand, rock, sky, ridge.*ridge, sky, rock, sand"):
        evaluate(run, data=data)
    assert not list(run.iterdir())


def test_unknown_split_and_protocol_list_the_choices(run: Path, data: Path) -> None:
    with pytest.raises(ValueError, match="train, val, test"):
        evaluate(run, data=data, split="tset")
    with pytest.raises(ValueError, match="full, paper"):
        evaluate(run, data=data, protocol="whole")


def test_a_perfect_network_scores_one_hundred(run: Path, data: Path) -> None:
    truth, _ = maps(9)
    for number, name in enumerate("cdefg"):
        sample(data, name, truth, np.where(truth == IGNORE, number % 2, truth))
    found = evaluate(run, data=data, draws=20)
    assert found["mIoU"] == found["mAcc"] == found["pixel_accuracy"] == 100
    assert found["intervals"]["mIoU"] == [100, 100]
    assert "\npixel accuracy 100.00 %" in command.as_table(found)
