"""Drawings: what is in them, and what must not be."""

from __future__ import annotations

import math
import re

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s5mars.report.figures import SERIES, Curve, chart, stacked_shares


def drawn_lines(svg: str, series: int) -> list[str]:
    return re.findall(rf'd="([^"]*)"[^>]*stroke: var\(--series-{series}\)', svg)


def test_a_curve_is_drawn_point_by_point_in_its_colour() -> None:
    svg = chart([Curve("a", [1, 2, 3], [1.0, 3.0, 2.0], series=1)], name="x", title="t")
    (line, *_) = drawn_lines(svg, 2)
    assert len(re.findall("[ML]", line)) == 3
    assert not drawn_lines(svg, 1)
    assert svg.startswith('<svg role="img" aria-label="t"')


@pytest.mark.parametrize("values", [[], [None, None], [math.nan, math.inf]])
def test_nothing_to_draw_is_nothing(values) -> None:
    assert chart([Curve("a", range(len(values)), values)], name="x", title="t") == ""
    assert chart([], name="x", title="t") == ""


def test_unknown_values_leave_points_out() -> None:
    curve = Curve("a", [1, 2, 3, 4], [1.0, None, math.nan, 2.0])
    assert [array.tolist() for array in curve.points()] == [[1.0, 4.0], [1.0, 2.0]]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.one_of(st.none(), st.floats(width=32), st.sampled_from([math.nan, math.inf])),
        min_size=1,
        max_size=20,
    )
)
def test_any_values_make_a_drawing_without_marker_colours(values) -> None:
    svg = chart([Curve("a", range(len(values)), values)], name="x", title="t", smooth=True)
    assert not any(colour in svg for colour in SERIES)
    assert "#0102" not in svg
    assert "nan" not in svg


def test_it_brings_no_style_sheet_no_address_and_no_size() -> None:
    svg = chart([Curve("a", [1, 2], [1.0, 2.0])], name="x", title="t", unit="%", marked=1)
    for forbidden in ("<style", "<metadata", "http", "xmlns", "font-family"):
        assert forbidden not in svg
    head = svg[: svg.index(">")]
    assert "viewBox" in head
    assert "width" not in head


def test_text_is_taken_literally() -> None:
    svg = chart([Curve("a", [1], [1.0])], name="x", title='<b> & "q"', unit="$x^2$ <&>")
    assert "$x^2$ &lt;&amp;&gt;" in svg
    assert "<b>" not in svg


def test_names_keep_drawings_apart() -> None:
    curves = [Curve("a", [1, 2], [1.0, 2.0])]
    first, second = (chart(curves, name=name, title="t") for name in ("one", "two"))
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0] and not ids[0] & ids[1]
    for svg, known in zip((first, second), ids, strict=True):
        used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)
        assert used
        assert {a or b for a, b in used} <= known


def test_many_points_are_thinned_and_ends_are_kept_near() -> None:
    steps = list(range(10_000))
    svg = chart([Curve("a", steps, [float(s) for s in steps])], name="x", title="t")
    (line, *_) = drawn_lines(svg, 1)
    assert len(re.findall("[ML]", line)) <= 240


def test_the_users_matplotlib_settings_stay() -> None:
    before = dict(matplotlib.rcParams)
    chart([Curve("a", [1, 2], [1.0, 2.0])], name="x", title="t")
    assert dict(matplotlib.rcParams) == before


def test_shares_are_stacked_to_the_whole() -> None:
    svg = stacked_shares(
        [1, 2], [[0.5, 0.25], [None, 0.25]], ["#aa0000", "#00aa00"], name="x", title="t"
    )
    assert "fill: #aa0000" in svg
    assert "fill: #00aa00" in svg
    assert stacked_shares([1], [[1.0]], ["#aa0000"], name="x", title="t") == ""
    assert stacked_shares([1, 2], [[0, None]], ["#aa0000"], name="x", title="t") == ""
    assert stacked_shares([], [[], []], ["#aa0000", "#00aa00"], name="x", title="t") == ""
