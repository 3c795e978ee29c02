"""The page about one run."""

from __future__ import annotations

import base64
import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s5mars.errors import UserError
from s5mars.report import evaluations, render
from s5mars.report.comparison import write_comparison
from s5mars.report.run import write_report

SECTIONS = ["scores", "classes", "confusion", "training", "teacher", "images", "setup"]


def test_every_section_is_there(make_run, network, open_page) -> None:
    run = make_run()
    path = write_report(run)
    assert path == run / "report.html"
    page = open_page(path)
    assert [a["id"] for a in page.of("section")] == SECTIONS
    assert page.within("title") == ["S5Mars on tiny"]
    text = page.text
    assert "1 image, 50 % of the train split labelled" in text
    for expected in (
        "61.25",  # mIoU
        "55.5 – 66.6",  # its interval
        "The scores are for the test split (10 images)",
        "Protocol “full”",
        "Loss terms",
        "Learning rate",
        "Pixels that each loss term uses",
        "confident share",
        "labelled: 0.5",  # config.yaml
        "2.9.0",  # a version
        "s5mars train --data 'a b' --steps 600",
        "1 h 2 min",
        "loose & fine",  # a criterion
    ):
        assert expected in text, expected


def test_scores_on_other_data_have_a_section_and_do_not_replace_its_own(
    make_run, network, open_page
) -> None:
    run = make_run()
    other = {
        "mIoU": 33.25,
        "classes": {"soil+gravel": {"iou": 44.44, "acc": 50.0, "support": 9}},
        "protocol": {
            "split": "test",
            "data": "/far/navcam",
            "map": {
                "name": "a-b",
                "classes": {"soil+gravel": ["dust", "sand"]},
                "ignored_of_model": ["sky"],
                "ignored_of_data": [],
            },
        },
    }
    path = run / "cross-navcam-a-b-test-full.json"
    path.write_text(json.dumps(other))
    page = open_page(write_report(run, examples=0))
    assert "cross" in [a["id"] for a in page.of("section")]
    for expected in ("61.25", "33.25", "navcam", "soil+gravel 44.4", "cannot predict sky"):
        assert expected in page.text, expected
    assert "biases are newer than" not in page.text
    (run / "best.safetensors").touch()
    os.utime(path, (0, 0))
    assert "biases are newer than cross-navcam" in open_page(write_report(run)).text


def test_the_confusion_matrix_is_normalised_by_rows(make_run, network, open_page) -> None:
    page = open_page(write_report(make_run(), examples=0))
    cells = [a for a in page.of("td") if "→" in a.get("title", "")]
    assert len(cells) == 12  # three classes with pixels, four columns; the absent row has dashes
    assert [a["style"] for a in cells[:4]] == ["--v:90.0%", "--v:9.0%", "--v:1.0%", "--v:0.0%"]
    assert cells[0]["class"].split() == ["right", "strong"]
    assert "soil → soil: 900 pixels, 90.00 %" in cells[0]["title"].replace("\u202f", " ")
    # 200 of the 300 wrong pixels
    assert 'rock <b>& "big" $x$ predicted as soil (66.7 %)' in page.text


def test_an_absent_class_is_named_and_has_no_score(make_run, network, open_page) -> None:
    page = open_page(write_report(make_run(), examples=0))
    assert "excluded from the means: hole." in page.text


def test_names_are_escaped_everywhere(make_run, network, open_page) -> None:
    note = "<img src=x onerror=alert(1)> & more"
    run = make_run(
        metrics={"notes": [note], "method": "<i>m</i>"}, config="a: <u>x</u>\n", versions={}
    )
    page = open_page(write_report(run))
    assert note in page.text
    assert "<i>m</i>" in page.text
    assert "a: <u>x</u>" in page.text
    assert 'rock <b>& "big" $x$' in page.text
    for forbidden in ("<img src=x", "<script", "<b>&", "<u>x", "<i>m"):
        assert forbidden not in page.source


@pytest.mark.parametrize(
    "metrics",
    [
        {"history": []},
        {"history": None, "best": None, "notes": None, "seconds": None, "pool_images": None},
        {"pool_images": 0, "network": "student", "method": "supervised"},
        {"data": None, "labelled_images": None, "split_for_selection": None, "network": None},
        {"history": [{"step": 10, "loss": math.nan, "terms": {}, "shares": {}}]},
        {"history": [{"step": 10, "validation": None, "pseudo_labels": None}, {"loss": 1}]},
        {"best": {"step": None, "mIoU": math.nan}, "seed": None, "steps": None},
    ],
)
def test_what_is_missing_does_not_stop_it(make_run, network, open_page, metrics) -> None:
    run = make_run(metrics=metrics, config=None)
    (run / "versions.json").unlink()
    page = open_page(write_report(run))
    assert [a["id"] for a in page.of("section")] == SECTIONS
    assert "has no config.yaml" in page.text
    assert "nan" not in page.text.lower().split()


@pytest.mark.parametrize(
    "evaluation",
    [
        {"mIoU": None, "mAcc": math.nan, "pixel_accuracy": None},
        {"intervals": None},
        {"intervals": {"mIoU": [None, math.nan], "draws": 10, "classes": {}}},
        {"per_image": []},
        {"per_image": [{"name": "image_2", "mIoU": None}]},
        {"protocol": None},
    ],
)
def test_unknown_scores_are_dashes(make_run, network, open_page, evaluation) -> None:
    page = open_page(write_report(make_run(evaluation=evaluation)))
    assert "None" not in page.text
    assert "nan" not in page.text.lower().split()
    if evaluation.get("mIoU", 0) is None:
        assert "mIoU –" in page.text


def test_no_confusion_matrix_leaves_the_section_out(make_run, network, open_page) -> None:
    page = open_page(write_report(make_run(evaluation={"confusion": None}), examples=0))
    assert "confusion" not in [a["id"] for a in page.of("section")]


def test_a_run_without_pseudo_labels_says_so(make_run, network, open_page) -> None:
    metrics = json.loads((make_run("first") / "metrics.json").read_text())
    for entry in metrics["history"]:
        entry["pseudo_labels"], entry["shares"] = None, {}
    page = open_page(write_report(make_run(metrics={"history": metrics["history"]}), examples=0))
    assert "No pseudo-labels were recorded" in page.text


def test_a_curve_that_is_left_alone_is_still_named(make_run, network, open_page) -> None:
    metrics = json.loads((make_run("first") / "metrics.json").read_text())
    for entry in metrics["history"]:
        entry["pseudo_labels"] = {"accuracy": None, "confident_share": 0.0, "classes": {}}
    page = open_page(write_report(make_run(metrics={"history": metrics["history"]}), examples=0))
    assert "confident share" in page.within("li")
    assert "accuracy where confident" not in page.text


def test_four_pictures_an_image_and_the_prediction_is_the_networks(
    make_run, network, open_page
) -> None:
    page = open_page(write_report(make_run(), examples=1))
    pictures = page.of("img")
    assert len(pictures) == 3 * 4
    # Scores rise with the number of the image: 2 has the lowest, 11 the highest.
    order = [p["alt"].split(" of ")[1] for p in pictures[::4]]
    assert order == ["image_6", "image_11", "image_2"]
    assert [p["alt"].split(" of ")[0] for p in pictures[:4]] == [
        "image",
        "ground truth",
        "prediction",
        "wrong pixels",
    ]
    predicted = np.array(_picture(pictures[2]["src"]))
    assert predicted.shape == (40, 56)
    assert (predicted[:12, :-6] == 2).all()
    assert (predicted[12:] == 0).all()
    # Rock (200 of its 2000 labelled pixels) is what the network does not know.
    assert "10.0 % of labelled pixels" in page.text


def test_only_what_the_protocol_scores_is_shown(make_run, network, open_page) -> None:
    run = make_run(evaluation={"protocol": {"name": "paper", "split": "test", "crop": 20}})
    page = open_page(write_report(run, examples=1))
    assert _picture(page.of("img")[0]["src"]).size == (20, 20)
    assert "centre crop of 20 × 20" in page.text


@pytest.mark.parametrize(
    ("metrics", "evaluation", "expected"),
    [
        ({"split_for_selection": "test"}, {}, "The checkpoint was chosen on the test split"),
        (
            {},
            {"protocol": {"name": "full", "split": "val"}},
            "which is also the one that is scored",
        ),
        ({"notes": [{"kind": "warning", "text": "A storm."}]}, {}, "A storm."),
        ({"notes": ["3 unreadable files were left out."]}, {}, "3 unreadable files"),
        ({"notes": ["The images are synthetic."]}, {}, "The images are synthetic."),
        ({"steps": 300}, {}, "stopped at step 300 of 600"),
    ],
)
def test_warnings(make_run, network, open_page, metrics, evaluation, expected) -> None:
    page = open_page(write_report(make_run(metrics=metrics, evaluation=evaluation), examples=0))
    assert [a["class"] for a in page.of("li") if "class" in a].count("warning") == 1
    assert expected in page.text


def test_no_warning_without_a_reason_and_plain_notes_are_notes(
    make_run, network, open_page
) -> None:
    notes = ["A walk.", {"kind": "note", "text": "No skipped or synthetic images."}]
    page = open_page(write_report(make_run(metrics={"notes": notes}), examples=0))
    classes = [a["class"] for a in page.of("li") if "class" in a]
    assert classes.count("warning") == 0
    assert classes.count("note") == 2
    assert "No skipped or synthetic images." in page.text


@pytest.mark.parametrize("split", ["test", "test_gold"])
@pytest.mark.parametrize("recorded", ["with its kind", "as a text"])
def test_the_choice_on_the_test_split_is_said_once(
    make_run, network, open_page, split, recorded
) -> None:
    text = f"The checkpoint was chosen on the {split} split: the score on it is too high."
    note = {"kind": "selection", "text": text} if recorded == "with its kind" else text
    run = make_run(metrics={"split_for_selection": split, "notes": [note]})
    page = open_page(write_report(run, examples=0))
    assert page.text.count(f"The checkpoint was chosen on the {split} split") == 1


def test_weights_newer_than_the_evaluation_are_noticed(make_run, network, open_page) -> None:
    run = make_run()
    (run / "best.safetensors").touch()
    os.utime(run / "evaluation-test-full.json", (1_000, 1_000))
    page = open_page(write_report(run, examples=0))
    assert "newer than the evaluation" in page.text


def test_few_images_have_no_interval(make_run, network, open_page) -> None:
    intervals = {"mIoU": [None, None], "draws": 1000, "classes": {}}
    page = open_page(write_report(make_run(evaluation={"intervals": intervals}), examples=0))
    assert "There is no interval, because fewer than 5 images have labels." in page.text
    assert "bootstrap" not in page.text


def test_the_whole_test_split_is_preferred(make_run, network, open_page) -> None:
    run = make_run(evaluation={"mIoU": 11.11})
    other = json.loads((run / "evaluation-test-full.json").read_text())
    for name in ("val-full", "test-paper", "test_min1-full", "test-full-student"):
        (run / f"evaluation-{name}.json").write_text(json.dumps({**other, "mIoU": 22.22}))
    page = open_page(write_report(run, examples=0))
    assert "11.11" in page.text
    assert "22.22" not in page.text


@pytest.mark.parametrize(("test_split", "expected"), [(True, "test"), (False, "val")])
def test_without_an_evaluation_the_run_is_evaluated(
    make_run, network, open_page, data, monkeypatch, test_split, expected
) -> None:
    run = make_run(evaluation={"mIoU": 33.33})
    content = json.loads((run / "evaluation-test-full.json").read_text())
    (run / "evaluation-test-full.json").unlink()
    if not test_split:
        (data / "splits" / "test.txt").unlink()
    asked = []

    def evaluate(folder, *, data, splits, split):
        asked.append((folder, data, splits, split))
        return content

    monkeypatch.setattr(evaluations, "evaluate", evaluate)
    page = open_page(write_report(run, examples=0))
    assert asked == [(run, data, None, expected)]
    assert "33.33" in page.text


def test_a_run_without_an_evaluation_is_evaluated_with_the_given_lists(
    make_run, network, data, monkeypatch, tmp_path: Path
) -> None:
    run = make_run(metrics={"data": "/nowhere/tiny", "splits": "/nowhere/lists"})
    content = json.loads((run / "evaluation-test-full.json").read_text())
    (run / "evaluation-test-full.json").unlink()
    lists = (data / "splits").rename(tmp_path / "lists")
    asked = []

    def evaluate(folder, **options):
        asked.append(options)
        return content

    monkeypatch.setattr(evaluations, "evaluate", evaluate)
    write_report(run, examples=0, data=data, splits=lists)
    assert asked == [{"data": data, "splits": lists, "split": "test"}]


def test_data_that_is_gone_is_said_in_place_of_the_images(make_run, network, open_page) -> None:
    page = open_page(write_report(make_run(metrics={"data": "/nowhere/tiny"})))
    assert (
        "was trained on /nowhere/tiny, which does not exist: give the folder with --data."
        in page.text
    )
    assert not page.of("img")


def test_an_image_that_is_damaged_is_said_in_place_of_the_images(
    make_run, network, data, open_page, tmp_path: Path
) -> None:
    (image,) = (data / "images").glob("image_11.*")
    image.write_bytes(image.read_bytes()[:99])
    for page in (
        write_report(make_run()),
        write_comparison([make_run("b")], out=tmp_path / "x.html"),
    ):
        shown = open_page(page)
        assert "The images cannot be shown" in shown.text and "image_11" in shown.text
        assert not shown.of("img")


def test_weights_that_are_gone_are_said_in_place_of_the_images(make_run, open_page) -> None:
    page = open_page(write_report(make_run()))
    assert "contains no best.safetensors" in page.text


@pytest.mark.parametrize("write", [write_report, lambda run, out: write_comparison([run], out=out)])
def test_a_page_overwrites_no_image(write, make_run, tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.touch()
    with pytest.raises(UserError, match=r"--out must be a \.html file \(got .*a\.jpg\)"):
        write(make_run(), out=image)
    assert not image.read_bytes()


def test_another_place(make_run, network, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    assert write_report(make_run(), out=out, examples=0) == out
    assert out.is_file()


def test_the_same_run_gives_the_same_bytes(make_run, network, tmp_path: Path) -> None:
    run = make_run()
    first = write_report(run, out=tmp_path / "1.html", examples=1).read_bytes()
    assert write_report(run, out=tmp_path / "2.html", examples=1).read_bytes() == first


def test_an_old_page_survives_a_failure(make_run, network, monkeypatch) -> None:
    run = make_run()
    write_report(run, examples=0)
    before = sorted(run.iterdir())
    old = (run / "report.html").read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write_report(run, examples=0)
    monkeypatch.undo()
    assert (run / "report.html").read_bytes() == old
    assert sorted(run.iterdir()) == before


def test_options_in_notices_stay_in_one_line() -> None:
    """Browsers broke ``--steps`` after its first hyphen."""
    shown = render._options("a <b>: use more --steps or a larger --batch-size; 3--4")
    assert shown == (
        'a &lt;b&gt;: use more <span class="option">--steps</span> or a larger '
        '<span class="option">--batch-size</span>; 3--4'
    )


def test_a_misspelt_name_in_a_template_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="title"):
        render.write_page("report.html.j2", {}, tmp_path / "x.html")
    assert not list(tmp_path.iterdir())


def test_folders_that_are_no_run(make_run, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing: no such run folder"):
        write_report(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"metrics\.json and best\.json missing"):
        write_report(tmp_path)
    run = make_run()
    (run / "best.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"not a finished run: best\.json missing; `s5mars train --resume"
    ):
        write_report(run)  # its config.yaml makes `train --out` refuse the folder


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metrics.json", "{", r"metrics\.json: damaged JSON file"),
        ("metrics.json", "[]", r"metrics\.json: damaged .*expected an object"),
        ("best.json", "{}", r"best\.json: damaged run .*taxonomy"),
        ("evaluation-test-full.json", "{", r"evaluation-test-full\.json: damaged evaluation"),
        ("evaluation-test-full.json", "{}", r"damaged evaluation .*classes"),
    ],
)
def test_damaged_files_are_named(make_run, file, content, message) -> None:
    run = make_run()
    (run / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        write_report(run)
    assert not (run / "report.html").exists()


def test_arguments_that_cannot_be(make_run, network, tmp_path: Path) -> None:
    run = make_run()
    with pytest.raises(ValueError, match="examples must be at least 0"):
        write_report(run, examples=-1)
    with pytest.raises(ValueError, match="must be a file"):
        write_report(run, out=tmp_path, examples=0)


def _picture(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
