"""Draw scores by the number of labelled images from several result files of one data set.

    python benchmarks/labels.py docs/results/ai4mars-fiftieth-class-biases.json \
        docs/results/ai4mars-eighth.json --out docs/images/labels.png

``s5mars table --figures`` draws the same figure of a comparison that has several labelled shares.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pairs import check_scored_alike
from s5mars.comparison.figures import Line, by_labels, lines_of
from s5mars.comparison.results import Comparison, read_comparison
from s5mars.comparison.standings import groups_of
from s5mars.files import write_figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+", help="files of benchmarks/grids.py")
    parser.add_argument("--out", type=Path, required=True, help="path to the PNG file")
    options = parser.parse_args(arguments)
    write_figure(
        options.out, by_labels(joined([read_comparison(path) for path in options.results]))
    )


def joined(comparisons: Sequence[Comparison]) -> list[Line]:
    """One line per method, with the scores of all comparisons.

    Raises:
        ValueError: if the comparisons are of other data, or are scored on another split.
    """
    check_scored_alike(comparisons)
    lines: dict[str, Line] = {}
    for comparison in comparisons:
        for line in lines_of(comparison, groups_of(comparison)):
            before = lines.get(line.title, line)
            lines[line.title] = Line(line.title, before.colour, {**before.scores, **line.scores})
    return list(lines.values())


if __name__ == "__main__":
    main()
