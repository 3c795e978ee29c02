"""A small comparison made by hand, whose tables can be checked with pencil and paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from s5mars.comparison.results import Comparison, Result

SETTINGS: dict[str, Any] = {
    "s5mars": "0.1.0",
    "data": {"folder": "site", "layout": "plain", "taxonomy": "site", "classes": ["soil", "hole"]},
    "evaluation": {"split": "test", "protocol": "full"},
    "training": {
        "steps": 600, "epochs": None, "batch": 6, "crop": 192, "model": "tf_efficientnet_lite0",
        "recipe": "default", "select_on": "val", "resolution": "1/2", "partition_seed": 0,
    },
}  # fmt: skip

SCORES = {
    ("supervised", 0): 40.0, ("supervised", 1): 42.0, ("supervised", 2): 44.0,
    ("s5mars", 0): 45.0, ("s5mars", 1): 47.5, ("s5mars", 2): 48.5,
}  # fmt: skip
"""Differences 5, 5.5, 4.5: mean 5, s = 0.5, half = 4.302653 · 0.5 / √3 = 1.2421."""


def comparison(
    scores: dict[tuple[str, int], float] = SCORES,
    *,
    share: str = "0.25",
    settings: dict[str, Any] = SETTINGS,
) -> Comparison:
    rows = {
        "supervised": {
            "title": "Supervised", "group": "methods", "method": "supervised", "settings": {"a": 1},
        },
        "s5mars": {"title": "S5_Mars", "group": "methods", "method": "s5mars", "settings": {}},
        "fixmatch": {
            "title": "FixMatch", "group": "methods", "method": "fixmatch", "settings": {},
        },
    }  # fmt: skip
    empty = Comparison(
        settings=settings,
        rows=rows,
        shares={share: {"labelled": float(share)}},
        references={"methods": "supervised"},
        note="nothing was tuned",
    )
    cells = [
        Result(
            row=row,
            share=share,
            seed=seed,
            folder=f"cells/{row}/{share}/seed-{seed}",
            fingerprint=empty.fingerprint(row, share),
            status="done",
            mIoU=score,
            mAcc=score + 10,
            pixel_accuracy=90.0,
            classes={
                "soil": {"iou": score, "acc": score + 10, "support": 7},
                "hole": {"iou": None, "acc": None, "support": 0},
            },
            curve=[[300, score - 10], [600, score]],
            best_step=600,
            seconds=60.0,
            elapsed=90.0,
            network="student" if row == "supervised" else "teacher",
            scored_images=51,
            pool_crops=0 if row == "supervised" else 3600,
            labelled_images=40,
            partition=f"p{seed}",
            encoder_weights="encoder weights: none",
        )
        for (row, seed), score in scores.items()
    ]
    return replace(empty, cells=tuple(cells))
