"""Renderers on a comparison made by hand, and what no table is made of."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s5mars.cli import main
from s5mars.comparison.grid import Cell, method_rows
from s5mars.comparison.paper import paper_ablation
from s5mars.comparison.results import read_comparison, write_comparison
from s5mars.comparison.runner import remaining_text
from s5mars.comparison.standings import groups_of
from s5mars.comparison.table import FORMS, table
from s5mars.errors import UserError

from .handmade import SCORES, SETTINGS, comparison


def write(folder: Path, **changes: Any) -> Path:
    write_comparison(folder, replace(comparison(), **changes))
    return folder


def test_markdown(tmp_path: Path) -> None:
    text = table(write(tmp_path), form="md")
    assert (
        "| S5_Mars | 3 | 47.00 ± 1.80 | 57.00 ± 1.80 | +5.00 [+3.76, +6.24] | "
        "Supervised: +5.00 [+3.76, +6.24] |"
    ) in text
    assert "| Supervised | 3 | 42.00 ± 2.00 | 52.00 ± 2.00 | - | S5_Mars: -5.00" in text
    assert "| row | soil | hole | mIoU |" in text
    assert "| S5_Mars | 47.00 ± 1.80 | - | 47.00 ± 1.80 |" in text
    assert "Absent from the ground truth, and excluded from the mean: hole (-)." in text
    for words in (
        "The checkpoint was chosen on the val split.",
        "student (Supervised); teacher (S5_Mars)",
        "labelled share 0.25 (40 images)",
        "test split (51 images), the whole image of each",
        "600 steps of batch 6, crop 192, tf_efficientnet_lite0",
        "encoder weights: none",
        "Seeds: 0, 1, 2. Seed of the label partition: 0.",
        "Image resolution: 1/2. Methods with a pool use 3,600 crops of it.",
        "Note: nothing was tuned",
    ):
        assert text.count(words) == 2, words  # under both tables
    assert "no difference shown" not in text.replace("shows no difference", "")
    assert "paper's numbers" not in text


def test_counts_have_commas(tmp_path: Path) -> None:
    first = comparison()
    training = first.settings["training"] | {"steps": 2000}
    longer = replace(first, settings=first.settings | {"training": training})
    cells = tuple(
        replace(
            cell,
            labelled_images=4277,
            scored_images=1200,
            fingerprint=longer.fingerprint(cell.row, cell.share),
        )
        for cell in longer.cells
    )
    write_comparison(tmp_path, replace(longer, cells=cells))
    text = table(tmp_path)
    for words in ("2,000 steps of batch", "(4,277 images)", "(1,200 images)", "3,600 crops"):
        assert words in text


def test_no_difference_is_said(tmp_path: Path) -> None:
    scores = SCORES | {("s5mars", 2): 43.0}
    write_comparison(tmp_path, comparison(scores))
    # Differences 5, 5.5, −1: mean 3.17, s = 3.62.
    assert "+3.17 [-5.82, +12.15], no difference shown" in table(tmp_path)


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    write_comparison(tmp_path, comparison({("supervised", 0): 40.0, ("s5mars", 0): 45.0}))
    text = table(tmp_path)
    assert "| S5_Mars | 1 | 45.00 | 55.00 | +5.00 (one seed, no interval) |" in text


def test_a_cell_without_a_score_is_in_no_difference() -> None:
    made = comparison()
    cells = tuple(
        replace(cell, status="running", mIoU=None, mAcc=None)
        if cell.key == ("supervised", "0.25", 2)
        else cell
        for cell in made.cells
    )
    (group,) = groups_of(replace(made, cells=cells))
    found = {standing.row: standing for standing in group.standings}["s5mars"].to_reference
    assert found is not None and found.n == 2 and found.mean == 5.25


def test_the_best_other_row_is_the_best_of_those_with_common_seeds(tmp_path: Path) -> None:
    made = comparison(SCORES | {("fixmatch", 3): 70.0})
    write_comparison(tmp_path, made)
    text = table(tmp_path)
    assert "Supervised: +5.00 [+3.76, +6.24] |" in text and "S5_Mars: -5.00 [" in text
    assert "| FixMatch | 1 | 70.00 | 80.00 | no common seed | no common seed |" in text
    made = comparison(SCORES | {("fixmatch", 0): 44.0, ("fixmatch", 3): 70.0})
    write_comparison(tmp_path, made)
    best = {standing.row: standing.best_other for standing in groups_of(made)[0].standings}
    assert best == {"supervised": "S5_Mars", "s5mars": "FixMatch", "fixmatch": "S5_Mars"}


def test_a_row_with_one_easy_seed_is_not_the_best_other_row() -> None:
    scores = {
        ("supervised", 0): 80.0, ("supervised", 1): 50.0,
        ("s5mars", 0): 81.0, ("s5mars", 1): 52.0,
        ("fixmatch", 0): 79.0,
    }  # fmt: skip
    best = {s.row: s.best_other for s in groups_of(comparison(scores))[0].standings}
    assert best == {"supervised": "S5_Mars", "s5mars": "Supervised", "fixmatch": "S5_Mars"}


def test_failed_and_unfinished_cells_are_named(tmp_path: Path) -> None:
    cells = list(comparison().cells)
    cells[3] = replace(cells[3], status="failed", reason="out of memory", mIoU=None)
    cells[4] = replace(cells[4], status="running", mIoU=None)
    for form in FORMS:
        text = table(write(tmp_path, cells=tuple(cells)), form=form).replace("\\_", "_")
        assert "Failed: s5mars 0.25 seed 0: out of memory." in text
        assert "Not finished: s5mars 0.25 seed 1." in text
    assert "2 (S5_Mars)" in table(tmp_path)
    assert "Rows have different numbers of seeds" in table(tmp_path)


def test_warnings_name_the_rows_and_seeds_they_are_about(tmp_path: Path) -> None:
    made = comparison()
    notes = {"supervised": ["all", "both"], "s5mars": ["all", "ours"]}
    cells = [
        replace(
            cell, notes=[*notes[cell.row], *(["both"] if cell.key[::2] == ("s5mars", 1) else [])]
        )
        for cell in made.cells
    ]
    write_comparison(tmp_path, replace(made, cells=tuple(cells)))
    lines = table(tmp_path).splitlines()
    assert {line for line in lines if "Warning" in line} == {
        "- Warning: all",
        "- Warning (S5_Mars; seeds 0, 1, 2): ours",
        "- Warning (Supervised; seeds 0, 1, 2 / S5_Mars; seed 1): both",
    }


def test_latex_escapes(tmp_path: Path) -> None:
    text = table(write(tmp_path, note="50% of a & b_c"), form="latex")
    assert r"S5\_Mars & 3 & 47.00 $\pm$ 1.80 &" in text
    assert r"Note: 50\% of a \& b\_c" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2


def test_html_escapes(tmp_path: Path) -> None:
    text = table(write(tmp_path, note="<script>"), form="html")
    assert "<td>47.00 ± 1.80</td>" in text
    assert "&lt;script&gt;" in text and "<script>" not in text


def test_csv_is_numbers(tmp_path: Path) -> None:
    text = table(write(tmp_path), form="csv")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    supervised, s5mars = csv.DictReader(lines)
    assert (s5mars["row"], s5mars["mIoU"], s5mars["mIoU sd"]) == ("s5mars", "47.0000", "1.8028")
    assert s5mars["reference"] == "Supervised"
    assert s5mars["to reference low"] == "3.7579"
    assert (s5mars["IoU soil"], s5mars["IoU hole"]) == ("47.0000", "")
    assert supervised["to reference"] == ""
    assert "# The checkpoint was chosen on the val split." in text


def test_the_test_split_as_judge_is_told(tmp_path: Path) -> None:
    training = SETTINGS["training"] | {"select_on": "test"}
    write_comparison(tmp_path, comparison(settings=SETTINGS | {"training": training}))
    assert "The checkpoint was chosen on the test split, which is also the scored split" in table(
        tmp_path
    )


@pytest.mark.parametrize(
    ("layout", "taxonomy", "share", "shown"),
    [
        ("s5mars", "s5mars", "0.2", ["table III", "76.49"]),
        ("mars-bench", "s5mars", "1", ["table III", "80.15", "table V", "95.64"]),
        ("ai4mars", "ai4mars", "1", ["table IV", "74.68"]),
        ("s5mars", "s5mars", "0.25", []),
        ("ai4mars", "ai4mars", "0.5", []),
        ("plain", "s5mars", "0.2", []),
    ],
)
def test_the_papers_numbers_stand_apart(
    layout: str, taxonomy: str, share: str, shown: list[str], tmp_path: Path
) -> None:
    data = SETTINGS["data"] | {"layout": layout, "taxonomy": taxonomy}
    write_comparison(tmp_path, comparison(settings=SETTINGS | {"data": data}, share=share))
    text = table(tmp_path)
    ours, _, papers = text.partition("The paper's numbers, not measured here")
    assert bool(papers) == bool(shown)
    assert all(word in papers and word not in ours for word in shown)
    assert "paper" not in table(tmp_path, form="csv")


def test_the_papers_ablations_are_of_its_data_with_all_labels() -> None:
    data = {"layout": "s5mars", "taxonomy": "s5mars"}
    found = paper_ablation(data, "1", "mixing")
    assert found is not None
    assert (found.name, found.rows["dacs"]) == ("table VIII", (83.80, 78.69))
    assert paper_ablation(data, "0.5", "mixing") is None
    assert paper_ablation({"layout": "plain", "taxonomy": "s5mars"}, "1", "mixing") is None
    assert paper_ablation(data, "1", "objects") is None  # not readable


def test_mixed_settings_are_refused(tmp_path: Path) -> None:
    other = comparison(settings=SETTINGS | {"training": SETTINGS["training"] | {"steps": 4}})
    mixed = (*comparison().cells[:5], other.cells[5])
    with pytest.raises(ValueError, match=r"s5mars 0\.25 seed 2 were trained with other settings"):
        table(write(tmp_path, cells=mixed))


def test_other_labels_are_refused(tmp_path: Path) -> None:
    cells = list(comparison().cells)
    cells[5] = replace(cells[5], partition="another")
    with pytest.raises(ValueError, match="different labelled images"):
        table(write(tmp_path, cells=tuple(cells)))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no comparison"):
        table(tmp_path)
    (tmp_path / "comparison.json").write_text("{")
    with pytest.raises(ValueError, match="damaged comparison"):
        table(tmp_path)
    (tmp_path / "comparison.json").write_text("{}")
    with pytest.raises(ValueError, match="has format None"):
        table(tmp_path)
    write(tmp_path, cells=())
    with pytest.raises(ValueError, match="no cell of the comparison has finished"):
        table(tmp_path)
    with pytest.raises(ValueError, match=r"must be one of md, latex, html, csv \(got 'pdf'\)"):
        table(tmp_path, form="pdf")


def test_reads_what_it_writes(tmp_path: Path) -> None:
    write(tmp_path)
    write_comparison(tmp_path, read_comparison(tmp_path))  # with the defaults of all options
    first = (tmp_path / "comparison.json").read_text()
    write_comparison(tmp_path, read_comparison(tmp_path))
    assert (tmp_path / "comparison.json").read_text() == first
    assert json.loads(first)["format"] == 1


def test_time_left_is_of_the_same_method() -> None:
    supervised, s5mars = (
        Cell(row, "0.25", "0.25", 9) for row in method_rows(["supervised", "s5mars"])
    )
    seconds = {"supervised": 60.0, "s5mars": 600.0}
    done = [replace(cell, elapsed=seconds[cell.row]) for cell in comparison().cells]
    assert remaining_text([supervised], done, jobs=1) == "1 cell left, about 1 min"
    assert remaining_text([s5mars] * 2, done, jobs=2) == "2 cells left, about 10 min"
    assert remaining_text([supervised, s5mars], done[:3], jobs=1).endswith("about 2 min")
    assert remaining_text([s5mars], [], jobs=1) == "1 cell left"


def seeds(folder: Path, *wanted: int, **changes: Any) -> Path:
    """Write a comparison of these seeds alone."""
    cells = tuple(cell for cell in comparison().cells if cell.seed in wanted)
    return write(folder, cells=cells, **changes)


def test_two_comparisons_with_equal_settings_are_one_table(tmp_path: Path) -> None:
    first, second = (
        seeds(tmp_path / "a", 0, 1),
        seeds(tmp_path / "b", 2, note="on a second machine"),
    )
    copied = tmp_path / "second.json"
    copied.write_bytes((second / "comparison.json").read_bytes())
    text = table([first, copied])
    assert "| S5_Mars | 3 | 47.00 ± 1.80 | 57.00 ± 1.80 | +5.00 [+3.76, +6.24] |" in text
    assert "Note: nothing was tuned; on a second machine" in text
    # A score replaces a cell of the other comparison that has none.
    cells = (
        replace(cell, status="stopped", mIoU=None) if cell.seed == 2 else cell
        for cell in comparison().cells
    )
    planned = write(tmp_path / "c", cells=tuple(cells))
    for order in ([planned, second], [second, planned]):
        assert "| S5_Mars | 3 | 47.00 ± 1.80 |" in table(order)
        assert "Not finished" not in table(order)
    # Neither does the reason of a failure get lost.
    failed = replace(comparison().cells[2], status="failed", mIoU=None, reason="no memory")
    tried = write(tmp_path / "d", cells=(failed,))
    for order in ([planned, tried], [tried, planned]):
        assert "Failed: supervised 0.25 seed 2: no memory." in table(order)


def test_comparisons_that_cannot_be_joined_are_refused(tmp_path: Path) -> None:
    first = seeds(tmp_path / "a", 0, 1)
    with pytest.raises(
        UserError, match=r"b has a score of supervised 0\.25 seed 1, and so has .*a:"
    ):
        table([first, seeds(tmp_path / "b", 1, 2)])
    last, again = seeds(tmp_path / "last", 2), seeds(tmp_path / "again", 2)
    with pytest.raises(UserError, match=r"again has .* seed 2, and so has .*a or .*last: leave"):
        table([first, last, again])
    longer = SETTINGS | {"training": SETTINGS["training"] | {"steps": 900}}
    write_comparison(tmp_path / "c", comparison({("s5mars", 2): 40.0}, settings=longer))
    with pytest.raises(UserError, match=r"training\.steps: 600 in .*a, 900 in .*c"):
        table([first, tmp_path / "c"])
    far = {"steps": 9, "batch": 9, "crop": 9, "recipe": "paper", "resolution": "1"}
    changed = SETTINGS | {"training": SETTINGS["training"] | far}
    write_comparison(tmp_path / "far", comparison({("s5mars", 2): 40.0}, settings=changed))
    with pytest.raises(UserError, match=r"training\.steps: 600 in .*, 9 in .*; and 2 more$"):
        table([first, tmp_path / "far"])
    rows = {**comparison().rows}
    rows["s5mars"] = {**rows["s5mars"], "settings": {"weight": 2}}
    other = replace(comparison({("s5mars", 2): 40.0}), rows=rows)
    cell = replace(other.cells[0], fingerprint=other.fingerprint("s5mars", "0.25"))
    write_comparison(tmp_path / "d", replace(other, cells=(cell,)))
    with pytest.raises(UserError, match=r"row s5mars\.settings\.weight: None in .*a, 2 in .*d"):
        table([first, tmp_path / "d"])
    old, new = (seeds(tmp_path / str(n), n, content={"labels": str(n)}) for n in (0, 1))
    with pytest.raises(UserError, match="different ones: the labels differ"):
        table([old, new])
    (supervised, s5mars) = (cell for cell in comparison().cells if cell.seed == 0)
    other_labels = replace(s5mars, partition="p9")
    with pytest.raises(UserError, match="trained on different labelled images"):
        table(
            [
                write(tmp_path / "e", cells=(supervised,)),
                write(tmp_path / "f", cells=(other_labels,)),
            ]
        )


def test_the_reference_can_be_chosen(tmp_path: Path) -> None:
    text = table(write(tmp_path), reference="s5mars")
    assert "| row | seeds | mIoU | mAcc | to S5_Mars |" in text
    assert "| Supervised | 3 | 42.00 ± 2.00 | 52.00 ± 2.00 | -5.00 [-6.24, -3.76] |" in text
    with pytest.raises(UserError, match="--reference must be one of supervised, s5mars"):
        table(tmp_path, reference="x")


def test_options_of_the_figures_need_them(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("row", "images", "data"):
        assert main(["table", "x", f"--{option}", "1"]) == 2
        assert f"--{option} requires --figures" in capsys.readouterr().err


def test_figures_of_a_result_file_have_no_predictions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "results.json"
    copied.write_bytes((write(tmp_path / "a") / "comparison.json").read_bytes())
    assert main(["table", str(copied), "--figures", str(tmp_path / "figures")]) == 0
    assert "predictions were not drawn: they need one folder" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"scores.png", "curves.png"}
