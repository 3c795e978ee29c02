"""The page about several runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from markupsafe import Markup

from s5mars.report import comparison
from s5mars.report.comparison import write_comparison
from s5mars.report.figures import Curve


@pytest.fixture
def two(make_run) -> list[Path]:
    return [
        make_run(
            "base",
            metrics={"method": "supervised", "network": "student", "pool_images": 0},
            evaluation={"mIoU": 50.0},
        ),
        make_run("ours", evaluation={"mIoU": 61.25}),
    ]


def test_one_column_a_run(two, network, open_page, tmp_path: Path) -> None:
    out = write_comparison(two, out=tmp_path / "demo" / "report.html", title="A & B")
    page = open_page(out)
    assert [a["id"] for a in page.of("section")] == [
        "scores",
        "classes",
        "confusion",
        "training",
        "images",
        "setup",
    ]
    assert page.within("h1") == ["A & B"]
    headers = page.within("th")
    start = headers.index("IoU, %")
    assert headers[start : start + 5] == ["IoU, %", "Supervised", "S5Mars", "Difference", "Support"]
    assert "+11.25" in page.text
    assert "Validation mIoU" in page.text
    # Eight images: image, truth, and a prediction of each run.
    assert len(page.of("img")) == 8 * 4
    assert {a["style"] for a in page.of("div") if a.get("class") == "panels"} == {"--n:4"}
    assert not [a for a in page.of("li") if a.get("class") == "warning"]


def test_confusion_matrices_and_the_steps_that_were_kept(
    two, network, open_page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[Curve]] = []

    def chart(curves, **settings):
        drawn.append(list(curves))
        return Markup("<svg></svg>")

    monkeypatch.setattr("s5mars.report.curves.chart", chart)
    page = open_page(write_comparison(two, out=tmp_path / "page.html"))
    assert page.source.count('<table class="confusion">') == 2
    assert "Most frequent confusions" in page.source
    assert "Ring: the step whose weights were kept." in page.source
    best = [json.loads((run / "metrics.json").read_text())["best"]["step"] for run in two]
    assert [curve.kept for curve in drawn[0]] == best


def test_images_are_spread_from_the_hardest_to_the_easiest(
    two, network, open_page, tmp_path: Path
) -> None:
    page = open_page(write_comparison(two, out=tmp_path / "x.html", images=3))
    names = [a["alt"].split(" of ")[1] for a in page.of("img")[::4]]
    assert names == ["image_2", "image_6", "image_11"]


def test_seeds_of_one_method_are_told_apart(make_run, network, open_page, tmp_path: Path) -> None:
    runs = [make_run(f"s{seed}", metrics={"seed": seed}) for seed in range(3)]
    page = open_page(write_comparison(runs, out=tmp_path / "x.html", images=1))
    for seed in range(3):
        assert f"S5Mars, seed {seed}" in page.text
    assert "Difference" not in page.within("th")
    dashes = [a["class"] for a in page.of("span") if a.get("class", "").startswith("line")]
    assert {"line dash-0", "line dash-1", "line dash-2"} == set(dashes)


def test_equal_seeds_are_told_apart_by_their_folders(
    make_run, network, open_page, tmp_path: Path
) -> None:
    page = open_page(write_comparison([make_run("a"), make_run("b")], out=tmp_path / "x.html"))
    assert "S5Mars (a)" in page.text
    assert "S5Mars (b)" in page.text


def test_one_run_is_enough(make_run, network, open_page, tmp_path: Path) -> None:
    page = open_page(write_comparison([make_run()], out=tmp_path / "x.html"))
    assert len(page.of("img")) == 8 * 3


def test_differences_that_spoil_the_comparison_are_said(
    make_run, network, open_page, tmp_path: Path
) -> None:
    runs = [
        make_run("a"),
        make_run(
            "b",
            metrics={"labelled_images": 2, "total_steps": 300, "steps": 300, "data": "/other"},
            evaluation={"protocol": {"name": "paper", "split": "val"}},
        ),
    ]
    page = open_page(write_comparison(runs, out=tmp_path / "x.html"))
    for what in ("data", "protocols", "labelled images", "lengths"):
        assert f"The runs differ in their {what}," in page.text
    assert "No images are shown because the runs were trained on different data." in page.text


def test_runs_of_different_images_are_not_ranked(
    make_run, network, open_page, tmp_path: Path
) -> None:
    def fold(name: str, miou: float, images: list[str], soil: int) -> Path:
        per_image = [{"name": image, "mIoU": miou} for image in images]
        classes = {
            "soil": {"iou": miou, "acc": miou, "support": soil},
            "rock": {"iou": miou, "acc": miou, "support": 100},
        }
        scores = {"mIoU": miou, "classes": classes, "confusion": None, "per_image": per_image}
        return make_run(name, evaluation=scores)

    runs = [fold("fold-1", 50.0, ["a", "b"], 100), fold("fold-2", 60.0, ["b", "c"], 300)]
    page = open_page(write_comparison(runs, out=tmp_path / "x.html", images=0))
    assert "The runs were scored on different images (2, 2; 1 in common)," in page.text
    assert "Difference" not in page.within("th") and "+10.00" not in page.text
    assert "50 % / 75 %" in page.text
    assert not [a for a in page.of("td") if "best" in a.get("class", "").split()]
    runs[1] = fold("same", 60.0, ["b", "a"], 100)
    page = open_page(write_comparison(runs, out=tmp_path / "x.html", images=0))
    assert "different images" not in page.text and "+10.00" in page.text
    assert [a for a in page.of("td") if "best" in a.get("class", "").split()]


def test_a_warning_of_one_run_names_it_and_of_all_runs_does_not(
    make_run, network, open_page, tmp_path: Path
) -> None:
    both, one = "The images are synthetic.", "3 unreadable files were left out."
    runs = [
        make_run("a", metrics={"seed": 1, "notes": [both]}),
        make_run("b", metrics={"seed": 2, "notes": [both, one]}),
    ]
    page = open_page(write_comparison(runs, out=tmp_path / "x.html", images=0))
    assert f"S5Mars, seed 2: {one}" in page.text
    assert page.text.count(both) == 1
    assert f"Warning: {both}" in page.text


def test_runs_without_scores_or_history_still_show(
    make_run, network, open_page, tmp_path: Path
) -> None:
    empty = {"mIoU": None, "per_image": [], "intervals": None}
    runs = [make_run("a", metrics={"history": []}, evaluation=empty), make_run("b")]
    page = open_page(write_comparison(runs, out=tmp_path / "x.html"))
    assert "No image has a score in every evaluation." in page.text
    assert "None" not in page.text


def test_the_protocol_is_that_of_a_run_with_scores(
    two, network, open_page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All images of the first run may have trained it, so that none is left to score it."""
    read = comparison.evaluation_of
    monkeypatch.setattr(
        comparison, "evaluation_of", lambda run: {} if run.folder == two[0] else read(run)
    )
    page = open_page(write_comparison(two, out=tmp_path / "x.html"))
    assert "The scores are for the test split" in page.text
    assert "There is no score, because" not in page.text


def test_errors(make_run, network, tmp_path: Path) -> None:
    out = tmp_path / "x.html"
    run = make_run("a")
    with pytest.raises(ValueError, match="at least one run folder"):
        write_comparison([], out=out)
    with pytest.raises(ValueError, match="is given twice"):
        write_comparison([run, run.parent / "." / "a"], out=out)
    with pytest.raises(ValueError, match="images must be at least"):
        write_comparison([run], out=out, images=-1)
    with pytest.raises(FileNotFoundError, match="no such run folder"):
        write_comparison([run, tmp_path / "missing"], out=out)
    compared = tmp_path / "compared runs"
    (compared / "cells" / "s5mars").mkdir(parents=True)
    (compared / "comparison.json").touch()
    with pytest.raises(
        ValueError, match=r"is a comparison: `s5mars table '.*compared runs'` prints"
    ):
        write_comparison([compared], out=out)
    make_run("cell").rename(compared / "cells" / "s5mars" / "seed-0")
    with pytest.raises(ValueError, match=r"its runs, such as .*cells/s5mars/seed-0$"):
        write_comparison([compared], out=out)
    other = make_run("b")
    best = json.loads((other / "best.json").read_text())
    best["taxonomy"]["classes"].pop()
    (other / "best.json").write_text(json.dumps(best))
    with pytest.raises(ValueError, match="give runs with the same classes"):
        write_comparison([run, other], out=out)
    assert not out.exists()
