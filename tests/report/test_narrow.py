"""The pages on the screen of a telephone, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s5mars.report.comparison import write_comparison
from s5mars.report.run import write_report

WIDTH = 400
TEXT_SIZES = """() => [...document.querySelectorAll("svg text")].map((text) => {
  const svg = text.ownerSVGElement;
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return parseFloat(getComputedStyle(text).fontSize) * scale;
})"""
SCROLLERS = """() => [...document.querySelectorAll(".scroll")].map((box) => {
  return [box.scrollWidth > box.clientWidth, getComputedStyle(box, "::after").height !== "0px"];
})"""


def test_pages_fit_a_narrow_screen(
    browser: Any,
    make_run: Any,
    network: type,
    tmp_path: Path,
) -> None:
    runs = [make_run("a" * 80), make_run("b")]  # a long path wraps
    pages = [
        write_report(runs[0], out=tmp_path / "run.html"),
        write_comparison(runs, out=tmp_path / "comparison.html"),
    ]
    for path in pages:
        for width in (WIDTH, 1280):
            page = browser.new_page(viewport={"width": width, "height": 800})
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            sizes = page.evaluate(TEXT_SIZES)
            assert sizes and min(sizes) >= 10
            scrollers = page.evaluate(SCROLLERS)
            assert all(hinted == wider for wider, hinted in scrollers), scrollers
            assert any(wider for wider, _ in scrollers) or width > WIDTH
            page.close()
