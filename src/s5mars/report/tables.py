"""Turn an evaluation into the tables of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from s5mars.classes import Taxonomy, hex_colour
from s5mars.text.numbers import UNKNOWN, at, count, interval, mapping, number, score, share


def overall(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the three scores with their intervals as text, and the marks of the ruler."""
    keys = {"miou": "mIoU", "macc": "mAcc", "pixel_accuracy": "pixel_accuracy"}
    ends = interval(at(evaluation, "intervals", "mIoU"))
    return {
        **{name: score(evaluation.get(key)) for name, key in keys.items()},
        **{f"{name}_range": range_of(evaluation, key) for name, key in keys.items()},
        "point": number(evaluation.get("mIoU")),
        "low": ends[0] if ends else None,
        "high": ends[1] if ends else None,
        "support": count(sum(map(support_of, mapping(evaluation.get("classes")).values()))),
    }


def range_of(evaluation: Mapping[str, Any], *path: str) -> str:
    """``"48.1 – 54.0"``, or "" without an interval."""
    ends = interval(at(evaluation, "intervals", *path))
    return f"{ends[0]:.1f}\u2009–\u2009{ends[1]:.1f}" if ends else ""


def class_rows(evaluation: Mapping[str, Any], taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """Return one row per class, in the order of the evaluation."""
    classes = mapping(evaluation.get("classes"))
    total = sum(support_of(entry) for entry in classes.values())
    rows = []
    for name, entry in classes.items():
        iou, pixels = number(at(entry, "iou")), support_of(entry)
        rows.append(
            {
                "name": str(name),
                "colour": colour_of(str(name), taxonomy),
                "iou": score(iou),
                "percent": None if iou is None else round(iou, 2),
                "acc": score(at(entry, "acc")),
                "support": count(pixels),
                "share": share(pixels, total) if pixels else UNKNOWN,
                "range": range_of(evaluation, "classes", name),
                "absent": not pixels,
            }
        )
    return rows


def support_of(entry: object) -> float:
    """Return the pixels of a class in the ground truth; 0 if they were not recorded."""
    return number(at(entry, "support")) or 0.0


def confusion_table(evaluation: Mapping[str, Any], taxonomy: Taxonomy) -> dict[str, Any] | None:
    """Return the row-normalised confusion matrix for the template; None if there is none."""
    matrix = evaluation.get("confusion")
    names = [str(name) for name in mapping(evaluation.get("classes"))]
    if not isinstance(matrix, list) or not names or len(matrix) != len(names):
        return None
    counts = [[number(value) or 0.0 for value in row] for row in matrix if isinstance(row, list)]
    if len(counts) != len(names) or any(len(row) != len(names) for row in counts):
        return None
    classes = [{"name": name, "colour": colour_of(name, taxonomy)} for name in names]
    rows = []
    for index, (entry, row) in enumerate(zip(classes, counts, strict=True)):
        total = sum(row)
        cells = [
            _cell(names[index], names[column], value, total, right=index == column)
            for column, value in enumerate(row)
        ]
        rows.append({**entry, "cells": cells})
    return {"classes": classes, "rows": rows, "worst": _frequent_confusions(names, counts)}


def _cell(truth: str, predicted: str, value: float, total: float, *, right: bool) -> dict[str, str]:
    if not total:
        return {"kind": "zero", "percent": "0", "text": UNKNOWN, "title": f"no pixel of {truth}"}
    percent = 100 * value / total
    kinds = {"right": right, "strong": percent > 55, "zero": percent <= 0.5}
    return {
        "kind": " ".join(kind for kind, holds in kinds.items() if holds),
        "percent": f"{percent:.1f}",
        "text": f"{percent:.0f}" if percent > 0.5 or not value else "<1",
        "title": f"{truth} → {predicted}: {count(value)} pixels, {percent:.2f} %",
    }


def _frequent_confusions(names: Sequence[str], counts: Sequence[Sequence[float]]) -> str:
    wrong = [
        (value, truth, predicted)
        for truth, row in enumerate(counts)
        for predicted, value in enumerate(row)
        if truth != predicted and value > 0
    ]
    total = sum(value for value, _, _ in wrong)
    if not total:
        return ""
    largest = sorted(wrong, reverse=True)[:3]
    listed = [
        f"{names[truth]} predicted as {names[predicted]} ({share(value, total)})"
        for value, truth, predicted in largest
    ]
    text = listed[0] if len(listed) == 1 else ", ".join(listed[:-1]) + " and " + listed[-1]
    return f"Most frequent confusions (share of the wrong pixels): {text}."


def colour_of(name: str, taxonomy: Taxonomy) -> str:
    """Return ``#rrggbb`` of a class; of merged classes, that of the first one."""
    by_name = {c.name: hex_colour(c.colour) for c in taxonomy.classes}
    return by_name.get(name) or by_name.get(name.split("+")[0].strip(), "#808080")
