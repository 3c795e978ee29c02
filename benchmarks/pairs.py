"""Print the differences between two rows, paired by seed, for every score and class.

    python benchmarks/pairs.py docs/results/marsscapes-eighth.json \
        docs/results/marsscapes-eighth-second-seeds.json --rows s5mars supervised_averaged

Several files are joined if they are scored on the same images in the same way and if the runs of a
seed have the same labels; the text beside such a table must state what else differs. `s5mars table`
prints the tables of files whose settings are all equal.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from s5mars.comparison.intervals import Difference, paired_difference
from s5mars.comparison.results import Comparison, Result, read_comparison


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+", help="Files of benchmarks/grids.py")
    parser.add_argument(
        "--rows", nargs=2, default=["s5mars", "supervised_averaged"], help="Rows of the table"
    )
    options = parser.parse_args(arguments)
    comparisons = [read_comparison(path) for path in options.results]
    print(table(joined(comparisons), *options.rows))


def joined(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The scores of all finished cells, as entries of ``table``.

    Raises:
        ValueError: if the comparisons are not scored alike, or labels or cells do not fit.
    """
    check_scored_alike(comparisons)
    labels: dict[int, str] = {}
    entries: dict[tuple[str, int], dict[str, Any]] = {}
    for result in (result for comparison in comparisons for result in comparison.done()):
        if labels.setdefault(result.seed, result.partition) != result.partition:
            raise ValueError(f"{result.name} has other labels than another run of its seed")
        if (result.row, result.seed) in entries:
            raise ValueError(f"two results have a score of {result.name}")
        entries[result.row, result.seed] = entry_of(result)
    return list(entries.values())


def check_scored_alike(comparisons: Sequence[Comparison]) -> None:
    """Raise ``ValueError`` if the comparisons are of other data or another protocol."""
    scored = [
        (c.settings["data"]["taxonomy"], c.settings["data"]["splits"]["test"]["names"],
         c.settings["evaluation"]) for c in comparisons
    ]  # fmt: skip
    if any(other != scored[0] for other in scored):
        raise ValueError("the results are not scored on the same images in the same way")


def entry_of(result: Result) -> dict[str, Any]:
    return {
        "row": result.row,
        "seed": result.seed,
        "mIoU": result.mIoU,
        "pixel_accuracy": result.pixel_accuracy,
        "iou": {name: entry["iou"] for name, entry in result.classes.items()},
    }


def table(entries: Iterable[Mapping[str, Any]], first: str, second: str) -> str:
    """Markdown: both means, the difference of each pair, and its mean with Student's interval."""
    columns: dict[str, dict[str, dict[int, float]]] = {}
    for entry in entries:
        scores = {"mIoU": entry["mIoU"], "pixel accuracy": entry["pixel_accuracy"]}
        scores |= {f"IoU of {name.replace('_', ' ')}": iou for name, iou in entry["iou"].items()}
        for name, value in scores.items():
            if value is None:  # the class is in no label of the split
                continue
            columns.setdefault(name, {}).setdefault(entry["row"], {})[entry["seed"]] = value
    lines = [f"| % | {second} | {first} | difference, by seed | mean and interval | |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for name, rows in columns.items():
        one, two = rows.get(first, {}), rows.get(second, {})
        seeds = sorted(one.keys() & two.keys())
        difference = paired_difference(one, two)
        if difference is None:
            return f"no seed has both {first} and {second}"
        means = [statistics.fmean(row[seed] for seed in seeds) for row in (two, one)]
        each = ", ".join(signed(one[seed] - two[seed]) for seed in seeds)
        shown = "shown" if difference.shown else "no difference shown"
        lines.append(
            f"| {name} | {means[0]:.1f} | {means[1]:.1f} | {each} | {with_interval(difference)} | "
            f"{shown} |"
        )
    miou = columns["mIoU"]
    lines += ["", *(f"{row}: mIoU {listed(miou[row].values())}" for row in (second, first))]
    return "\n".join(lines)


def with_interval(difference: Difference) -> str:
    """``+2.1 (−0.5 to +4.7)``, in bold if it is shown; the mean alone if there is no interval."""
    mean = signed(difference.mean)
    if difference.low is None or difference.high is None:
        return mean
    bold = f"**{mean}**" if difference.shown else mean
    return f"{bold} ({signed(difference.low)} to {signed(difference.high)})"


def listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def signed(value: float) -> str:
    """``+1.0``, ``−1.0`` or ``0.0``."""
    return f"{value:+.1f}".replace("-", "−") if round(value, 1) else "0.0"


if __name__ == "__main__":
    main()
