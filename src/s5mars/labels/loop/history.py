"""``history.jsonl``: one line for each stroke, undo, redo, status and score.

A line is appended after the mask is in place, so that the mask is never behind the history. A torn
last line is cut off: by ``append`` if the disk is full, and otherwise when the file is opened.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from s5mars.errors import DamagedFileError
from s5mars.files.reading import parse_object, reading

NAME = "history.jsonl"

_KIND, _REMEDY = "history", "repair or remove it"

_LARGEST = 1 << 26
"""Pixels of the box of a stroke, which are more than a browser can paint on."""

IDLE_SECONDS = 60.0
"""A longer pause between two actions of one person counts as this long."""


class History:
    """The file, the minutes that people spent, and the scores over time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = 0.0
        self.scores: list[dict[str, Any]] = []
        self._last: dict[str, float] = {}  # by person: the time of the last action

    def read(self) -> list[dict[str, Any]]:
        """All records, oldest first; a torn last line is removed from the file.

        Raises:
            DamagedFileError: if another line is not a complete record.
        """
        if not self.path.exists():
            return []
        records = []
        with reading(self.path, kind=_KIND, remedy=_REMEDY):
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                with self.path.open("r+b") as file:
                    file.truncate(whole)
            for line in content[:whole].splitlines():
                record = parse_object(line)
                _check(record)
                records.append(record)
                self._count(record)
        return records

    def damaged(self, reason: object) -> DamagedFileError:
        """The error for a record whose content makes no sense."""
        return DamagedFileError(f"{self.path}: damaged {_KIND} ({reason}): {_REMEDY}")

    def append(self, do: str, **facts: object) -> dict[str, Any]:
        """Write a record of something that happens now, and return it."""
        record = {"time": round(time.time(), 2), "do": do, **facts}
        self._count(record)
        if do == "score":
            record["minutes"] = self.minutes
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(record, separators=(",", ":"), ensure_ascii=True) + "\n"
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab") as file:
                file.write(line.encode())
        except OSError:
            with suppress(OSError):
                os.truncate(self.path, size)  # the next record must not continue a torn line
            raise
        return record

    @property
    def minutes(self) -> float:
        """Minutes that people spent, pauses left out."""
        return round(self.seconds / 60, 2)

    def _count(self, record: dict[str, Any]) -> None:
        if record["do"] == "score":
            self.scores.append(record)
        by = record.get("by")
        if not isinstance(by, str):
            return  # not an action of a person
        now = float(record["time"])
        if by in self._last:
            self.seconds += min(max(0.0, now - self._last[by]), IDLE_SECONDS)
        self._last[by] = now


def _check(record: dict[str, Any]) -> None:
    """Raise a ValueError if a record lacks a field that is used, or has one of another type."""
    do = record.get("do")
    wanted: dict[str, Callable[[Any], bool]] = {"do": _is_text, "time": _is_finite}
    if do in ("paint", "undo", "redo"):
        wanted |= {"image": _is_text, "version": _is_version}
    if do == "paint":
        wanted["box"] = _is_box
    if do == "status":
        wanted |= {"image": _is_text, "status": _is_text}
    if do == "score":
        wanted |= dict.fromkeys(("minutes", "miou"), _is_number)
    for name, fits in wanted.items():
        if name not in record:
            raise ValueError(f"a record {do!r} without {name!r}")
        if not fits(record[name]):
            raise ValueError(f"a record {do!r} with {name!r} {str(record[name])[:40]!r}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def _is_version(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_box(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 4 or {type(side) for side in value} != {int}:
        return False
    return bool(min(value) >= 0 and max(value) < _LARGEST and value[2] * value[3] <= _LARGEST)
