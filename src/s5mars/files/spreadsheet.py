"""Writes CSV in which spreadsheets find no formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

_FORMULA = ("=", "+", "-", "@", "\t")


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Format rows as CSV; ``None`` becomes an empty field.

    Text that a spreadsheet would run as a formula gets the prefix '. Numbers, also as text, do not
    change.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([_defused(field) for field in row] for row in rows)
    return text.getvalue()


def _defused(field: object) -> object:
    if not isinstance(field, str):
        return field
    field = field.replace("\r", " ")  # Python's writer does not quote it
    if not field.startswith(_FORMULA):
        return field
    try:
        float(field)
    except ValueError:
        return f"'{field}"
    return field
