"""``history.jsonl``: one line for each stroke, undo, redo, status and score.

A line is appended after the mask is in place, so that the mask is never behind the history. A torn
last line is cut off: by ``append`` if the disk is full, and otherwise when the file is opened.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from s5mars.files.reading import parse_object, reading

NAME = "history.jsonl"

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
            DamagedFileError: if another line is not a record.
        """
        if not self.path.exists():
            return []
        records = []
        with reading(self.path, kind="history", remedy="repair or remove it"):
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                with self.path.open("r+b") as file:
                    file.truncate(whole)
            for line in content[:whole].splitlines():
                record = parse_object(line)
                records.append(record)
                self._count(record)
        return records

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
