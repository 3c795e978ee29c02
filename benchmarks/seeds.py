"""Several seeds of two methods: a table with paired intervals, and their curves in one picture.

    python benchmarks/seeds.py --supervised runs/sup-* --s5mars runs/s5-* --out curves.png

Every run must have been evaluated (`s5mars evaluate RUN --data DATA --split test`). Runs are paired
by their seed, which also draws the labelled partition. The interval of the difference is Student's
t over the seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from scipy import stats

COLOURS = {"supervised": "#b0472e", "s5mars": "#1f6f8b"}


def read(runs: list[Path]) -> dict[int, tuple[dict[str, Any], dict[str, Any] | None]]:
    """Seed → (metrics, test evaluation)."""
    found = {}
    for run in runs:
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        path = run / "evaluation-test-full.json"
        evaluation = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        found[metrics["seed"]] = (metrics, evaluation)
    return found


def interval(values: list[float]) -> str:
    """Mean and 95 % interval of Student's t."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.2f} (one seed)"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.2f} ± {half:.2f}"


def main() -> None:
    """Print the table and draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for method in COLOURS:
        parser.add_argument(f"--{method}", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    runs = {method: read(getattr(options, method)) for method in COLOURS}
    seeds = sorted(set(runs["supervised"]) & set(runs["s5mars"]))
    names = list(next(iter(runs["supervised"].values()))[0]["history"][0]["validation"]["classes"])

    print("| test split | supervised | s5mars | difference (paired) |\n|---|---|---|---|")
    for key in ("mIoU", "mAcc", "pixel_accuracy", *names):
        columns = {}
        for method, found in runs.items():
            columns[method] = [
                evaluation[key] if key in evaluation else evaluation["classes"][key]["iou"]
                for seed in seeds
                if (evaluation := found[seed][1])
            ]
        complete = len({len(column) for column in columns.values()}) == 1
        if not complete or any(None in column for column in columns.values()):
            continue
        pairs = zip(columns["s5mars"], columns["supervised"], strict=True)
        difference = [a - b for a, b in pairs]
        label = key if key in {"mIoU", "mAcc"} else key.replace("_", " ")
        cells = (interval(c) for c in (columns["supervised"], columns["s5mars"], difference))
        print(f"| {label} | {' | '.join(cells)} |")
    for method, found in runs.items():
        minutes = statistics.mean(metrics["seconds"] / 60 for metrics, _ in found.values())
        print(f"\n{method}: {minutes:.0f} min a run, seeds {sorted(found)}")

    figure, axes = plt.subplots(1, len(seeds), figsize=(3.4 * len(seeds), 3), sharey=True)
    for axis, seed in zip(axes if len(seeds) > 1 else [axes], seeds, strict=True):
        for method, colour in COLOURS.items():
            history = runs[method][seed][0]["history"]
            steps = [entry["step"] for entry in history]
            scores = [entry["validation"]["mIoU"] for entry in history]
            axis.plot(steps, scores, color=colour, label=method)
        axis.set(title=f"seed {seed}", xlabel="step")
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("validation mIoU, %")
    figure.axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
