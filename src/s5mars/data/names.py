"""Lists of names as text, one a line: what is written is read back, whatever a file is called."""

from __future__ import annotations

import json
from collections.abc import Iterable


def as_lines(names: Iterable[str]) -> str:
    """The text of a list; a name that would not be read back as it is stands as a JSON string."""
    return "".join(f"{name if names_in(name) == [name] else json.dumps(name)}\n" for name in names)


def names_in(text: str) -> list[str]:
    """The names in the text of a list: # begins a comment, blanks around a name do not count.

    A line that is a JSON string is that name, with whatever it holds.
    """
    found = (_name(line.strip()) for line in text.splitlines())
    return [name for name in found if name]


def _name(line: str) -> str:
    if line.startswith('"'):
        try:
            name, end = json.JSONDecoder().raw_decode(line)
        except json.JSONDecodeError:
            pass  # a list from before there were quotes
        else:
            if line[end:].strip()[:1] in ("", "#"):
                return str(name)
    return line.partition("#")[0].strip()
