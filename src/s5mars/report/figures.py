"""Draw curves as SVG inside the page, with real text and the colours of the page.

matplotlib does not support style sheets, so lines are drawn in marker colours that are replaced by
CSS variables afterwards. This lets one drawing follow the light and the dark colour scheme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from s5mars.text.numbers import number

INK, GRID = "#010203", "#010204"
SERIES = tuple(f"#0102{0x10 + index:02x}" for index in range(8))
"""Marker colours, which the page maps to ``--ink``, ``--grid`` and ``--series-1`` to ``-8``."""

_VARIABLES = {INK: "--muted", GRID: "--grid"} | {
    colour: f"--series-{index + 1}" for index, colour in enumerate(SERIES)
}
_DASHES: tuple[object, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (7, 2, 1.5, 2)))
# Inches; only the size of the text relative to them matters.
_SIZE, _SMALL = (3.4, 2.15), (2.0, 1.1)
_MOST_POINTS = 240  # more cannot be distinguished at the size drawn

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text, so it scales and can be searched
    "svg.hashsalt": "s5mars",  # the same numbers give the same bytes
    "font.size": 8,
    "text.usetex": False,
    "text.parse_math": False,  # a run or a class may be named "a$b$"
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.8,
    "path.simplify": True,
}


@dataclass(frozen=True)
class Curve:
    """A line of a chart; steps may lack a value."""

    label: str
    steps: Sequence[float]
    values: Sequence[float | None]  # a point with None or NaN is omitted
    series: int = 0  # index of the series colour of the page
    dash: int = 0
    kept: float | None = None  # the step whose weights were kept

    def points(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the steps that have a value, and the values: ((N,), (N,)) float64."""
        known = [
            (float(step), value)
            for step, raw in zip(self.steps, self.values, strict=True)
            if (value := number(raw)) is not None
        ]
        array = np.array(known, np.float64).reshape(-1, 2)
        return array[:, 0], array[:, 1]

    @property
    def empty(self) -> bool:
        """True if no step has a value."""
        return not any(number(value) is not None for value in self.values)


def chart(
    curves: Sequence[Curve],
    *,
    name: str,
    title: str,
    unit: str = "",
    limits: tuple[float, float] | None = None,
    marked: float | None = None,
    smooth: bool = False,
    small: bool = False,
    below: str = "",
    along: str = "step",
) -> Markup:
    """Draw curves over the training step or another quantity.

    Args:
        name: name that is unique on the page; prefix of every id of the drawing.
        unit: unit of the y axis, written at its top.
        limits: limits of the y axis; None fits them to the values, starting at 0 if none is
            negative.
        marked: step to mark with a vertical line, e.g. the one whose weights were kept.
        smooth: draw a running mean over the faint values if there are at least 30.
        below: colour ``#rrggbb`` of the area below the first curve.

    Returns:
        An ``<svg>`` element with a ``viewBox`` and no size of its own; empty if no curve has a
        value.
    """
    drawn = [curve for curve in curves if not curve.empty]
    if not drawn:
        return Markup("")
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(small=small)
        last = 0.0
        for position, curve in enumerate(drawn):
            steps, values = _thinned(*curve.points())
            if below and position == 0:
                axes.fill_between(steps, values, color=below, alpha=0.3, linewidth=0)
            last = max(last, float(steps[-1]))
            _line(axes, curve, steps, values, smooth=smooth and len(steps) >= 30, small=small)
        if marked is not None:
            axes.axvline(marked, color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        _limits(axes, last, limits, drawn)
        _ticks(axes, small=small, unit=unit, along=along)
        return _svg(figure, name=name, title=title)


def stacked_shares(
    steps: Sequence[float],
    shares: Sequence[Sequence[float | None]],
    colours: Sequence[str],
    *,
    name: str,
    title: str,
) -> Markup:
    """Draw the shares of the classes over the training step as stacked areas.

    Args:
        steps: N steps.
        shares: for each of C classes N shares in [0, 1]; unknown ones count as 0.
        colours: C colours ``#rrggbb``.

    Returns:
        An ``<svg>`` element; empty if fewer than two steps have a positive share.
    """
    table = np.array([[number(value) or 0.0 for value in row] for row in shares], np.float64)
    total = table.sum(axis=0) if table.size else np.zeros(0)
    known = total > 0
    if known.sum() < 2:
        return Markup("")
    along = np.array([float(step) for step in steps])[known]
    table = 100 * table[:, known] / total[known]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(small=False)
        axes.stackplot(along, table, colors=list(colours), linewidth=0)
        axes.set_xlim(float(along[0]), float(along[-1]))
        axes.set_ylim(0, 100)
        _ticks(axes, small=False, unit="%", along="step")
        return _svg(figure, name=name, title=title)


def _axes(*, small: bool) -> tuple[Figure, Axes]:
    width, height = _SMALL if small else _SIZE
    figure = Figure(figsize=(width, height))
    figure.patch.set_visible(False)
    left, right, bottom, top = (0.34, 0.12, 0.24, 0.1) if small else (0.42, 0.1, 0.38, 0.2)
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    )
    axes.patch.set_visible(False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=3)
    return figure, axes


def _thinned(
    steps: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if len(steps) <= _MOST_POINTS:
        return steps, values
    bins = np.array_split(np.arange(len(steps)), _MOST_POINTS)
    return (
        np.array([steps[part].mean() for part in bins]),
        np.array([values[part].mean() for part in bins]),
    )


def _line(
    axes: Axes,
    curve: Curve,
    steps: NDArray[np.float64],
    values: NDArray[np.float64],
    *,
    smooth: bool,
    small: bool,
) -> None:
    colour = SERIES[curve.series % len(SERIES)]
    style = _DASHES[curve.dash % len(_DASHES)]
    width = 1.3 if small else 1.6
    if smooth:
        axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.3)
        values = _running_mean(values, max(5, len(values) // 15))
    # Not clipped: a line at 0 or 100 keeps its full width.
    common: Any = {"color": colour, "zorder": 3, "clip_on": False}
    axes.plot(
        steps, values, linewidth=width, linestyle=style, solid_capstyle="round",
        solid_joinstyle="round", **common,
    )  # fmt: skip
    if curve.kept is not None and steps[0] <= curve.kept <= steps[-1]:
        at = float(np.interp(curve.kept, steps, values))
        axes.plot(
            [curve.kept], [at], linestyle="", marker="o", markersize=5 if small else 7,
            markerfacecolor="none", markeredgewidth=1.1, **common,
        )  # fmt: skip
    few = len(steps) <= 8 and not small
    if few or not smooth:
        shown = slice(None) if few else slice(-1, None)
        axes.plot(steps[shown], values[shown], linestyle="", marker="o", markersize=2.6, **common)


def _running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    window = np.ones(2 * (width // 2) + 1)
    sums = np.convolve(values, window, "same")
    mean: NDArray[np.float64] = sums / np.convolve(np.ones(len(values)), window, "same")
    return mean


def _limits(
    axes: Axes, last: float, limits: tuple[float, float] | None, drawn: Sequence[Curve]
) -> None:
    axes.set_xlim(0, last * 1.02 if last > 0 else 1)
    if limits is not None:
        axes.set_ylim(*limits)
        return
    values = np.concatenate([curve.points()[1] for curve in drawn])
    if values.min() >= 0:
        axes.set_ylim(0, float(values.max()) * 1.08 or 1)


def _ticks(axes: Axes, *, small: bool, unit: str, along: str) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(3 if small else 5, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(2 if small else 5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _thousands(value)))
    if small:
        axes.tick_params(labelsize=9.2)  # at least 10 pixels where the chart is narrowest
        return
    common: Any = {"color": INK, "transform": axes.transAxes, "ha": "right"}
    axes.text(0, 1.03, unit, va="bottom", **common)
    axes.text(1, -0.13, along, va="top", **common)


def _thousands(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def _svg(figure: Figure, *, name: str, title: str) -> Markup:
    buffer = io.StringIO()
    # The metadata block holds http addresses, which the page must not contain.
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # The style sheet of the SVG would apply to the whole page, which has its own.
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.S)
    text = re.sub(r"font-family:[^;\"]*;?\s*", "", text)
    text = re.sub(r'\sxmlns(?::\w+)?="[^"]*"', "", text)
    text = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", text, count=2)
    # matplotlib gives the same ids in every drawing, and ids must be unique on the page.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'\b(?:xlink:)?href="#', f'href="#{name}-', text)
    for marker, variable in _VARIABLES.items():
        text = text.replace(marker, f"var({variable})")
    label = Markup.escape(title)
    return Markup(text.strip().replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))
