"""Print the rows of an ablation beside the whole method, paired by seed.

    python benchmarks/ablations.py docs/results/marsscapes-ablation-labels.json

The file must have the row ``s5mars`` and the rows of one ablation. Only seeds that the ablation has
been run with are shown; the row of the ablation that is the whole method has the scores of
``s5mars``. The last column is the paper's mIoU, on its own data with all labels.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from pairs import listed, signed, with_interval
from s5mars.comparison.intervals import paired_difference
from s5mars.comparison.results import Comparison, read_comparison
from s5mars.settings.ablations import ABLATED, ABLATIONS


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+", help="Files of benchmarks/grids.py")
    for path in parser.parse_args(arguments).results:
        print(table(read_comparison(path)), end="\n\n")


def table(comparison: Comparison) -> str:
    """Markdown: mIoU by seed, its mean, and the differences to the whole method, for every row."""
    (ablation,) = {row["group"] for row in comparison.rows.values()} & ABLATIONS.keys()
    scores: dict[str, dict[int, float]] = {}
    for result in comparison.done():
        if result.mIoU is not None:
            scores.setdefault(result.row, {})[result.seed] = result.mIoU
    seeds = {result.seed for result in comparison.done() if result.row != ABLATED}
    whole = {seed: score for seed, score in scores[ABLATED].items() if seed in seeds}
    lines = [
        f"| {ablation} | mIoU %, by seed | mean | to the whole method, by seed | paper's mIoU |",
        "|---|---|---|---|---|",
    ]
    for name, row in ABLATIONS[ablation].rows.items():
        facts = comparison.rows.get(f"{ablation}/{name}", {})
        is_whole = facts.get("settings") == comparison.rows[ABLATED]["settings"]
        own = whole if is_whole else scores.get(f"{ablation}/{name}", {})
        if (difference := paired_difference(own, whole)) is None:
            continue  # not run yet
        each = ", ".join(signed(own[seed] - whole[seed]) for seed in sorted(own))
        if len(own) > 1:
            each += f"; {with_interval(difference)}"
        columns = [
            f"`{name}`" + " (whole)" * is_whole,
            listed(own[seed] for seed in sorted(own)),
            f"{statistics.fmean(own.values()):.1f}",
            "" if is_whole else each,
            "" if row.paper is None else f"{row.paper[1]:.2f}",
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
