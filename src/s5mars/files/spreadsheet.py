"""CSV for users, who open it with a spreadsheet: no field becomes a formula there."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

_FORMULA = ("=", "+", "-", "@", "\t")


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Lines of CSV; ``None`` is an empty field, and text that a spreadsheet would compute gets a '.

    Numbers, also in text, stay as they are.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([_defused(field) for field in row] for row in rows)
    return text.getvalue()


def _defused(field: object) -> object:
    if not isinstance(field, str):
        return field
    field = field.replace("\r", " ")  # which Python's writer does not quote
    if not field.startswith(_FORMULA):
        return field
    try:
        float(field)
    except ValueError:
        return f"'{field}"
    return field
