"""Score the models of a comparison on a further data set and without class biases; print tables.

    python benchmarks/scores.py RUNS/ai4mars-eighth --gold ai4mars256_gold \
        --out docs/results/ai4mars-eighth-scores.json

Only two rows are scored; scores that the file contains are not computed again. The tables are their
differences, paired by seed, for docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pairs import table
from s5mars.comparison.results import Result, read_comparison
from s5mars.evaluation.command import evaluate
from s5mars.files import write_json
from s5mars.models.facts import checkpoint_path, read_facts


@dataclass(frozen=True)
class Kind:
    """One way to score a model."""

    title: str  # as ``scored_on`` in the file
    data: Path | None  # None: that of the comparison
    class_biases: bool
    split: str = "test"
    protocol: str = "full"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comparison", type=Path, help="Folder of a comparison with its runs")
    parser.add_argument("--gold", type=Path, help="Folder of a data set, scored on its split test")
    parser.add_argument("--out", type=Path, required=True, help="Path to the JSON file")
    parser.add_argument(
        "--rows", nargs=2, default=["s5mars", "supervised_averaged"], help="Rows to score"
    )
    options = parser.parse_args(arguments)
    comparison = read_comparison(options.comparison)
    how = comparison.settings["evaluation"]  # split and protocol
    own = Kind(f"{comparison.settings['data']['folder']} {how['split']}", None, True, **how)
    kinds = [replace(own, class_biases=False)]
    if options.gold is not None:
        kinds += [Kind(options.gold.name, options.gold, biases) for biases in (True, False)]
    about = f"Scores in % of the models of {options.comparison.resolve().name}"
    found = {"about": f"{about} by benchmarks/scores.py", "scores": []}
    if options.out.is_file():
        found = json.loads(options.out.read_text(encoding="utf-8"))
    done = [result for result in comparison.done() if result.row in options.rows]
    for result in done:
        for kind in kinds:
            if not any(is_of(entry, result, kind) for entry in found["scores"]):
                entry = score(options.comparison / result.folder, result, kind, found["scores"])
                found["scores"].append(entry)
                write_json(options.out, found)
                print(f"{result.name}, {kind.title}: mIoU {entry['mIoU']:.1f} %", flush=True)
    recorded = [entry_of(result, own) for result in done]
    for kind in [own, *kinds]:
        entries = [
            entry
            for entry in [*recorded, *found["scores"]]
            if (entry["scored_on"], entry["class_biases"]) == (kind.title, kind.class_biases)
        ]
        print(f"\n{kind.title}{'' if kind.class_biases else ', without class biases'}\n")
        print(table(entries, *options.rows))


def score(
    run: Path, result: Result, kind: Kind, known: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Evaluate a run; a model without class biases is not evaluated twice on the same images."""
    if not kind.class_biases and not has_class_biases(run):
        if kind.data is None:
            return entry_of(result, kind)
        for entry in known:
            if is_of(entry, result, replace(kind, class_biases=True)):
                return {**entry, "class_biases": False}
    with tempfile.TemporaryDirectory() as folder:
        scores = evaluate(
            run,
            data=kind.data,
            split=kind.split,
            protocol=kind.protocol,
            class_biases=kind.class_biases,
            out=folder,
            show=False,
        )
    return entry_of(result, kind, scores)


def has_class_biases(run: Path) -> bool:
    found = (read_facts(checkpoint_path(run)).get("class_biases") or {}).values()
    return any(any(entry["values"]) for entry in found)


def entry_of(result: Result, kind: Kind, scores: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The entry of the file; without ``scores``, those that the comparison has recorded."""
    if scores is None:
        scores = {
            "mIoU": result.mIoU,
            "pixel_accuracy": result.pixel_accuracy,
            "classes": result.classes,
        }
    return {
        "row": result.row,
        "seed": result.seed,
        "scored_on": kind.title,
        "class_biases": kind.class_biases,
        "mIoU": round(scores["mIoU"], 4),
        "pixel_accuracy": round(scores["pixel_accuracy"], 4),
        "iou": {
            name: entry["iou"] if entry["iou"] is None else round(entry["iou"], 4)
            for name, entry in scores["classes"].items()
        },
    }


def is_of(entry: Mapping[str, Any], result: Result, kind: Kind) -> bool:
    return (entry["row"], entry["seed"], entry["scored_on"], entry["class_biases"]) == (
        result.row, result.seed, kind.title, kind.class_biases,
    )  # fmt: skip


if __name__ == "__main__":
    main()
