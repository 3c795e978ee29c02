"""Folder layouts: each file here recognises one and reads it; ``open_dataset`` chooses.

To add a layout: a file with ``missing(root)`` and ``read(root)``, and a line in ``LAYOUTS``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from s5mars.data.dataset import Dataset
from s5mars.data.layouts import ai4mars, mars_bench, plain, s5mars_release
from s5mars.errors import MissingFileError, UserError


@dataclass(frozen=True)
class Layout:
    """How to know a layout and how to read it."""

    looks_like: str  # one line: what lies where
    missing: Callable[[Path], list[str]]  # what a folder lacks to be one; empty: it is one
    read: Callable[[Path], Dataset]


LAYOUTS: dict[str, Layout] = {
    "ai4mars": Layout(ai4mars.LOOKS_LIKE, ai4mars.missing, ai4mars.read),
    "mars-bench": Layout(mars_bench.LOOKS_LIKE, mars_bench.missing, mars_bench.read),
    "s5mars": Layout(s5mars_release.LOOKS_LIKE, s5mars_release.missing, s5mars_release.read),
    "plain": Layout(plain.LOOKS_LIKE, plain.missing, plain.read),
}
"""In the order in which they are tried: the most peculiar first."""


def open_dataset(path: Path | str, *, layout: str | None = None) -> Dataset:
    """Open a folder of rover images and labels; nothing in it is decoded unless it has no splits.

    Args:
        path: the folder.
        layout: a key of ``LAYOUTS``, or None to recognise it.

    A labelled folder without split lists gets stratified ones (which reads all its masks once),
    written into its ``splits/``.

    Raises:
        MissingFileError: if the folder is missing, empty or has no image.
        UserError: if it is no known layout (says what was looked for and what was found), its
            description is wrong, or a split list names unknown files.
    """
    root = Path(path)
    if not root.exists():
        raise MissingFileError(f"{root}: no such folder")
    if not root.is_dir():
        raise UserError(f"{root}: a file; give the folder of the data set")
    found = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    if not found:
        raise MissingFileError(f"{root}: the folder is empty")
    if layout is not None:
        chosen = _named(layout)
        lacks = chosen.missing(root)
        if lacks:
            raise UserError(
                f"{root}: not of layout {layout!r}: missing {', '.join(lacks)}; "
                f"found {_listing(found)}"
            )
        return chosen.read(root)
    for candidate in LAYOUTS.values():
        if not candidate.missing(root):
            return candidate.read(root)
    looked = "; ".join(f"{name}: {each.looks_like}" for name, each in LAYOUTS.items())
    raise UserError(
        f"{root}: no known layout of a data set; found {_listing(found)}; looked for {looked}"
    )


def _named(layout: str) -> Layout:
    if layout in LAYOUTS:
        return LAYOUTS[layout]
    near = difflib.get_close_matches(layout, LAYOUTS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(f"no layout {layout!r}; there are {', '.join(LAYOUTS)}{hint}")


def _listing(found: list[str], limit: int = 8) -> str:
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more
