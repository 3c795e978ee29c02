"""Notes on the scores of a run, in its ``metrics.json``; nothing here needs torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal["warning", "note", "selection"]

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
