"""Figures of a comparison: bars (5), scores by labels, curves (9); ``pictures`` has (10), (11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from s5mars.comparison.grid import METHODS_GROUP
from s5mars.comparison.joined import read_joined
from s5mars.comparison.pictures import predictions, worst
from s5mars.comparison.results import Comparison, Result
from s5mars.comparison.standings import Group, Standing, by_seed, groups_of
from s5mars.errors import UserError, require_choice, require_limit
from s5mars.files import write_figure
from s5mars.text.spread import summary

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f",
    "#bcbd22", "#17becf", "#9467bd", "#000000", "#332288",
)  # fmt: skip
"""The colour-blind safe palette of Okabe and Ito, extended to one colour per method."""

_DASHES, _HATCHES = ("-", "--", ":"), ("", "//", "..")
"""Of the lines and bars of the first, second and third rows that share a colour."""

_DOTS_PER_INCH = 150


def write_figures(
    source: Path | Sequence[Path],
    out: Path,
    *,
    row: str | None = None,
    images: int = 5,
    data: Path | None = None,
) -> list[Path]:
    """Draw the figures of a comparison as PNG files.

    Args:
        source: as of ``table``. Predictions are drawn only if it is one folder, which has the runs.
        row: row whose worst cases are shown; None shows S5Mars, or the row with the highest mean.
        data: folder of the data set, if it has moved since training.

    Returns:
        Paths of the files, in drawing order.

    Raises:
        MissingFileError: if the comparison, a run or the data is missing.
        UserError: if no cell has finished, the row is unknown, or ``images`` is below 1.
    """
    require_limit("at least 1", **{"--images": images})
    sources = [source] if isinstance(source, Path) else source
    comparison = read_joined(sources)
    groups = [group for group in groups_of(comparison) if group.standings]
    if not groups:
        named = ", ".join(map(str, sources))
        raise UserError(f"{named}: no cell of the comparison has finished")
    if row is not None:
        require_choice(row, comparison.rows, name="--row")
    written = []
    for kind in dict.fromkeys(group.name for group in groups):
        of_kind = [group for group in groups if group.name == kind]
        ending = "" if kind == METHODS_GROUP else f"-{kind}"
        written.append(_save(_bars(comparison, of_kind), out / f"scores{ending}.png"))
        if len({_labelled(group) for group in of_kind}) > 1:
            lines = lines_of(comparison, of_kind)
            written.append(_save(by_labels(lines), out / f"labels{ending}.png"))
        written.append(_save(_curves(comparison, of_kind), out / f"curves{ending}.png"))
        if not has_runs(sources):
            continue
        (folder,), group = sources, of_kind[-1]
        seed = _common_seed(group)
        measured = comparison.settings["evaluation"]
        if seed is not None:
            grid = predictions(folder, group, seed, images, data, measured)
            written.append(_save(grid, out / f"predictions{ending}.png"))
        standing = _chosen(group, row)
        if standing is not None:
            lowest = worst(folder, group, standing, images, data, measured)
            written.append(_save(lowest, out / f"worst{ending}.png"))
    return written


def has_runs(sources: Sequence[Path]) -> bool:
    """Whether predictions can be drawn: from one comparison, in the folder of its runs."""
    return len(sources) == 1 and sources[0].is_dir()


def _bars(comparison: Comparison, groups: Sequence[Group]) -> Figure:
    """Draw the mean mIoU of every row with its spread and seeds, one panel per share."""
    rows = max(len(group.standings) for group in groups)
    figure = Figure(figsize=(3 + 3.2 * len(groups), 1.3 + 0.42 * rows), layout="constrained")
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, group in zip(panels, groups, strict=True):
        standings = group.standings[::-1]
        places = np.arange(len(standings))
        bars = axes.barh(
            places,
            [s.mIoU.mean for s in standings],
            xerr=[s.mIoU.spread or 0.0 for s in standings],
            color=[_colour(comparison, s.row) for s in standings],
            alpha=0.75,
            error_kw={"ecolor": "#333333", "capsize": 3, "lw": 1},
        )
        for place, standing, bar in zip(places, standings, bars, strict=True):
            bar.set_hatch(_HATCHES[_turn(comparison, standing.row) % len(_HATCHES)])
            values = list(by_seed(standing.cells).values())
            axes.plot(values, [place] * len(values), "o", color="#333333", ms=3, alpha=0.7)
        axes.set_yticks(places, [f"{s.title} ({s.mIoU.n})" for s in standings])
        axes.set(xlabel="mIoU, %", title=f"labelled share {group.share}")
        axes.set_xlim(left=0)
        _quiet(axes, grid="x")
    figure.supxlabel(
        "bar: mean over seeds; whisker: standard deviation; dot: one seed; (n): number of seeds",
        fontsize=8,
    )
    return figure


@dataclass(frozen=True)
class Line:
    """Scores of one row by the number of labelled images."""

    title: str
    colour: str
    scores: Mapping[int, Sequence[float]]  # number of labelled images → mIoU of every seed, %
    dash: str = "-"


def lines_of(comparison: Comparison, groups: Sequence[Group]) -> list[Line]:
    """Return one line per row of these groups, which are of one kind."""
    lines = []
    for row in dict.fromkeys(standing.row for group in groups for standing in group.standings):
        scores: dict[int, list[float]] = {}
        for cell in (c for g in groups for s in g.standings if s.row == row for c in s.cells):
            if cell.labelled_images is not None and cell.mIoU is not None:
                scores.setdefault(cell.labelled_images, []).append(cell.mIoU)
        title = str(comparison.rows[row]["title"])
        lines.append(Line(title, _colour(comparison, row), scores, _dash(comparison, row)))
    return lines


def by_labels(lines: Sequence[Line]) -> Figure:
    """Draw the mean mIoU by the number of labelled images, and the standard deviation as a band."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for line in lines:
        by_count = dict(sorted(line.scores.items()))
        style: Any = {"label": line.title, "ls": line.dash, "marker": "o", "ms": 5}
        _line_and_band(axes, by_count, line.colour, **style)
        for count, scores in line.scores.items():
            axes.plot([count] * len(scores), scores, "o", color=line.colour, ms=3, alpha=0.5)
    counts = sorted({count for line in lines for count in line.scores})
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set(xlabel="labelled images (logarithmic scale)", ylabel="mIoU, %")
    _quiet(axes, grid="both")
    axes.legend(frameon=False, loc="lower right")
    figure.supxlabel("line: mean over seeds; band: standard deviation; dot: one seed", fontsize=8)
    return figure


def _labelled(group: Group) -> int | None:
    return group.standings[0].cells[0].labelled_images


def _curves(comparison: Comparison, groups: Sequence[Group]) -> Figure:
    """Draw the validation mIoU over the steps: mean over seeds, and their spread as a band."""
    figure = Figure(figsize=(1.2 + 4.2 * len(groups), 3.8), layout="constrained")
    panels = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    drawn: dict[str, Line2D] = {}  # row → its line in the first panel that has one
    for axes, group in zip(panels, groups, strict=True):
        for standing in group.standings:
            line = _line_and_band(
                axes, _scores_by_step(standing.cells), _colour(comparison, standing.row),
                label=standing.title, ls=_dash(comparison, standing.row), lw=1.6, marker=".", ms=4,
            )  # fmt: skip
            drawn.setdefault(standing.row, line)
        axes.set(xlabel="step", title=f"labelled share {group.share}")
        _quiet(axes, grid="both")
    split = comparison.settings["training"]["select_on"]
    panels[0].set_ylabel(f"mIoU on {split}, %")
    handles = [drawn[row] for row in comparison.rows if row in drawn]
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    figure.supxlabel("line: mean over seeds; band: standard deviation", fontsize=8)
    return figure


def _line_and_band(
    axes: Axes, scores: Mapping[Any, Sequence[float]], colour: str, **style: Any
) -> Line2D:
    """Draw the mean score at each place as a line, and the standard deviation as a band."""
    places, found = list(scores), [summary(values) for values in scores.values()]
    (line,) = axes.plot(places, [each.mean for each in found], color=colour, **style)
    low = [each.mean - (each.spread or 0.0) for each in found]
    high = [each.mean + (each.spread or 0.0) for each in found]
    axes.fill_between(places, low, high, color=colour, alpha=0.15, lw=0)
    return line


def _scores_by_step(cells: Sequence[Result]) -> dict[float, list[float]]:
    """Return the scores of all seeds at each step that every seed has a score for."""
    curves = [{s: v for s, v in cell.curve if s is not None and v is not None} for cell in cells]
    steps = sorted(set(curves[0]).intersection(*curves[1:]))
    return {step: [curve[step] for curve in curves] for step in steps}


def _colour(comparison: Comparison, row: str) -> str:
    return COLOURS[_place(comparison, row) % len(COLOURS)]


def _dash(comparison: Comparison, row: str) -> str:
    return _DASHES[_turn(comparison, row) % len(_DASHES)]


def _turn(comparison: Comparison, row: str) -> int:
    """Number of earlier rows of its kind that have the same colour."""
    return _place(comparison, row) // len(COLOURS)


def _place(comparison: Comparison, row: str) -> int:
    group = comparison.rows[row]["group"]
    return [name for name, facts in comparison.rows.items() if facts["group"] == group].index(row)


def _quiet(axes: Axes, *, grid: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, alpha=0.3)
    axes.set_axisbelow(True)


def _common_seed(group: Group) -> int | None:
    seeds = [set(by_seed(standing.cells)) for standing in group.standings]
    return min(seeds[0].intersection(*seeds[1:]), default=None)


def _chosen(group: Group, row: str | None) -> Standing | None:
    """Return the standing of a row; for None that of S5Mars, or of the best row."""
    by_row = {standing.row: standing for standing in group.standings}
    if row is not None:
        return by_row.get(row)
    best = max(group.standings, key=lambda standing: standing.mIoU.mean)
    return by_row.get("s5mars", best)


def _save(figure: Figure, path: Path) -> Path:
    write_figure(path, figure, dots_per_inch=_DOTS_PER_INCH)
    return path
