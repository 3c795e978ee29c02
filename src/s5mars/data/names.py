"""Reads and writes lists of names as text, one per line, for any file name."""

from __future__ import annotations

import json
from collections.abc import Iterable


def as_lines(names: Iterable[str]) -> str:
    """Format a list; names that ``names_in`` would change are written as JSON strings."""
    return "".join(f"{name if names_in(name) == [name] else json.dumps(name)}\n" for name in names)


def names_in(text: str) -> list[str]:
    """Parse a list: # starts a comment, and spaces around a name are removed.

    A line that is a JSON string is that name, unchanged.
    """
    found = (_name(line.strip()) for line in text.splitlines())
    return [name for name in found if name]


def _name(line: str) -> str:
    if line.startswith('"'):
        try:
            name, end = json.JSONDecoder().raw_decode(line)
        except json.JSONDecodeError:
            pass  # a name that starts with a quotation mark
        else:
            if line[end:].strip()[:1] in ("", "#"):
                return str(name)
    return line.partition("#")[0].strip()
