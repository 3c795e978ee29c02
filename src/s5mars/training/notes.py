"""Notes on the scores of a run, in its ``metrics.json``; nothing here needs torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from s5mars.data.dataset import way_to_score

Kind = Literal["warning", "note", "selection"]

ENOUGH_POOL_CROPS = 20_000
"""Number of pool crops after which the teacher passes the best labels-only score in published logs
(UniMatch V2) with 92 to 183 labels; on Cityscapes it takes twice as many."""

_GRAVE = ("synthetic", "unreadable", "skipped")


@dataclass(frozen=True)
class Note:
    """A remark that affects how to read the scores.

    Args:
        kind: ``warning`` if it makes a score unreliable; ``selection`` if it says that the
            checkpoint was chosen on a test split, for which reports have their own words; ``note``
            for all others.
    """

    kind: Kind
    text: str


def run_notes(
    facts: Mapping[str, Any],
    *,
    kept: int | None,
    tested: bool,
    alignment: str,
    warnings: Sequence[str],
    objects: str,
) -> list[Note]:
    """The notes on a run.

    Args:
        facts: content of its ``metrics.json`` that is known at its start.
        kept: step whose weights are kept; None before the first validation.
        tested: whether there is a test split.
        alignment: why distribution alignment is off although it was asked for, else "".
        warnings: one line for each warning about labels or the pool.
        objects: a sentence about images without object masks, or "".
    """
    notes: list[Note] = []

    def add(text: str, kind: Kind = "note") -> None:
        if text:
            notes.append(Note(kind, text))

    add(few_pool_crops(facts["pool_crops"]))
    if kept is not None:
        add(before_the_pool(kept, facts))
    if alignment:
        add(f"Distribution alignment was {alignment}.")
    split = facts["split_for_selection"]
    if split is None:
        add("There is no val split, so the last checkpoint was kept.")
        if not tested:
            add(
                "No labelled image was set aside, so there is no score: "
                f"{way_to_score(facts['labelled_images'])}."
            )
    elif split.startswith("test"):
        add(
            f"The checkpoint was chosen on the {split} split: the score on it is too high.",
            "selection",
        )
    if skipped := facts["skipped_files"]:
        add(f"{skipped} unreadable files were skipped (--skip-bad).", "warning")
    for warning in warnings:
        add(warning)
    add(objects)
    if "synthetic" in facts["dataset"]:
        add("The images are synthetic: no score on them means anything about Mars.", "warning")
    return notes


def few_pool_crops(crops: int) -> str:
    """A warning if a run uses few crops of the pool (0: it has none), else ""."""
    if not 0 < crops < ENOUGH_POOL_CROPS:
        return ""
    return (
        f"The run uses {crops:,} crops of the pool. Published runs needed {ENOUGH_POOL_CROPS:,} or "
        "more before the pool improved the score: use more --steps or a larger --batch."
    )


def before_the_pool(step: int, facts: Mapping[str, Any]) -> str:
    """A note if the weights of a step were kept before the pool was used, else "".

    ``facts`` are those of the run, with ``pool_images``, ``pool_from`` and ``kept``.
    """
    if not facts.get("pool_images") or step > facts.get("pool_from", 0):
        return ""
    remedy = " --keep after-warm-up or last keeps a later one." if facts["kept"] == "best" else ""
    return (
        f"The kept checkpoint is of step {step}, before the pool was used (step "
        f"{facts['pool_from']}): it was trained on labels alone.{remedy}"
    )


def read_notes(metrics: Mapping[str, Any]) -> list[Note]:
    """The notes in the content of ``metrics.json``; empty if there are none."""
    notes = metrics.get("notes")
    return [_read(note) for note in notes] if isinstance(notes, list) else []


def _read(note: Any) -> Note:
    if isinstance(note, Mapping) and note.get("kind") in get_args(Kind):
        return Note(note["kind"], str(note.get("text", "")))
    text = str(note)  # of an earlier version, which recorded no kinds
    if re.search(r"chosen on the test\S* split", text):
        return Note("selection", text)
    return Note("warning" if any(word in text.lower() for word in _GRAVE) else "note", text)
