"""The figure of scores by labelled images, on comparisons made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from s5mars.comparison import figures, pictures
from s5mars.comparison.figures import COLOURS, by_labels, lines_of, write_figures
from s5mars.comparison.results import Comparison, write_comparison
from s5mars.comparison.standings import groups_of
from s5mars.methods import METHODS

from .handmade import SCORES, SETTINGS, comparison

LEFT_OUT = [("s5mars", 1), ("s5mars", 2)]


def two_shares(*, labelled: int = 80) -> Comparison:
    """40 labelled images as in ``handmade``; more with ten points more, and one seed of S5Mars."""
    more = {key: score + 10 for key, score in SCORES.items() if key not in LEFT_OUT}
    half = comparison(more, share="0.5")
    doubled = tuple(replace(cell, labelled_images=labelled) for cell in half.cells)
    quarter = comparison()
    shares = {**quarter.shares, **half.shares}
    return replace(quarter, shares=shares, cells=(*quarter.cells, *doubled))


def test_a_line_has_the_scores_of_every_seed_by_labelled_images() -> None:
    made = two_shares()
    supervised, ours = lines_of(made, groups_of(made))
    assert supervised.title == "Supervised"
    assert supervised.scores == {40: [40, 42, 44], 80: [50, 52, 54]}
    assert ours.scores == {40: [45, 47.5, 48.5], 80: [55]}


def test_two_partitions_of_one_size_are_one_point() -> None:
    made = two_shares(labelled=40)
    supervised, _ = lines_of(made, groups_of(made))
    assert supervised.scores == {40: [40, 42, 44, 50, 52, 54]}


def test_the_figure_shows_means_deviations_and_seeds() -> None:
    made = two_shares()
    axes = by_labels(lines_of(made, groups_of(made))).axes[0]
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    np.testing.assert_allclose(lines["Supervised"].get_xydata(), [[40, 42], [80, 52]])
    np.testing.assert_allclose(lines["S5_Mars"].get_xydata(), [[40, 47], [80, 55]])
    bands = [b for b in axes.collections if isinstance(b, PolyCollection)]
    corners = {tuple(point) for point in bands[0].get_paths()[0].vertices.round(6).tolist()}
    assert {(40, 40), (40, 44), (80, 50), (80, 54)} <= corners  # mean ± 2, the deviation
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["40", "80"]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["Supervised", "S5_Mars"]


def legend_of_curves(made: Comparison) -> list[str]:
    figure = figures._curves(made, [group for group in groups_of(made) if group.standings])
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_curves_name_the_rows_of_every_share() -> None:
    made = two_shares()
    cells = [c for c in made.cells if (c.row, c.share) != ("supervised", "0.25")]
    assert legend_of_curves(replace(made, cells=tuple(cells))) == ["Supervised", "S5_Mars"]
    cells = [c for c in made.cells if (c.row, c.share) != ("s5mars", "0.25")]
    assert legend_of_curves(replace(made, cells=tuple(cells))) == ["Supervised", "S5_Mars"]


def test_every_method_has_a_colour_and_more_rows_have_dashes() -> None:
    assert len(METHODS) <= len(COLOURS) == len(set(COLOURS))
    made = comparison()
    names = [f"row{index}" for index in range(len(COLOURS) + 1)]
    rows = {name: {**made.rows["s5mars"], "title": name} for name in names}
    cells = [replace(made.cells[0], row=name) for name in names]
    many = replace(made, rows=rows, cells=tuple(cells), references={"methods": names[0]})
    lines = lines_of(many, groups_of(many))
    assert lines[0].colour == lines[-1].colour and lines[0].dash != lines[-1].dash
    assert len({(line.colour, line.dash) for line in lines}) == len(names)
    for axes in (by_labels(lines).axes[0], figures._curves(many, groups_of(many)).axes[0]):
        drawn = [line for line in axes.get_lines() if str(line.get_label()) in names]
        assert len({(line.get_color(), line.get_linestyle()) for line in drawn}) == len(names)
    bars = figures._bars(many, groups_of(many)).axes[0].patches
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in bars}) == len(names)


def test_captions_name_the_split_that_was_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = []

    def drawn(names: object, columns: object, data: object, text: str) -> Figure:
        captions.append(text)
        return Figure()

    column = SimpleNamespace(scores={"a": 50.0})
    monkeypatch.setattr(pictures, "_column", lambda *_: column)
    monkeypatch.setattr(pictures, "_pictures", drawn)
    scored = SETTINGS["evaluation"] | {"split": "val"}
    write_comparison(tmp_path, comparison(settings=SETTINGS | {"evaluation": scored}))
    write_figures(tmp_path, tmp_path / "figures")
    assert len(captions) == 2
    assert all("the val split" in text and "test" not in text for text in captions)


def test_pictures_show_the_scores_of_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report of the run would show those of the test split, if somebody has measured them."""
    for split, crop in (("test", None), ("val", 64)):
        content = {
            "classes": {}, "protocol": {"crop": crop},
            "per_image": [{"name": f"of {split}", "mIoU": 50.0}],
        }  # fmt: skip
        (tmp_path / f"evaluation-{split}-paper.json").write_text(json.dumps(content))
    for name in ("read_run", "open_network"):
        monkeypatch.setattr(pictures, name, lambda run: run)
    standing: Any = SimpleNamespace(title="", cells=[SimpleNamespace(seed=0, folder=".")])
    column = pictures._column(tmp_path, standing, 0, {"split": "val", "protocol": "paper"})
    assert column.scores == {"of val": 50.0} and column.crop == 64


@pytest.mark.parametrize(("made", "drawn"), [(comparison(), False), (two_shares(), True)])
def test_it_is_drawn_for_several_shares_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Comparison, drawn: bool
) -> None:
    # The two figures of predictions need the runs.
    def without_runs(*_: Any) -> Figure:
        return Figure()

    monkeypatch.setattr(figures, "predictions", without_runs)
    monkeypatch.setattr(figures, "worst", without_runs)
    write_comparison(tmp_path, made)
    written = write_figures(tmp_path, tmp_path / "figures")
    assert (tmp_path / "figures" / "labels.png" in written) == drawn
    assert (tmp_path / "figures" / "labels.png").exists() == drawn
