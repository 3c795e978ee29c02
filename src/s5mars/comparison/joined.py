"""Join comparisons with equal settings, such as seeds that were run on several machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from s5mars.comparison import settings
from s5mars.comparison.content import content_differences
from s5mars.comparison.results import (
    UNFINISHED,
    Comparison,
    Result,
    check_partitions,
    read_comparison,
)
from s5mars.errors import UserError, require_choice

_MOST = 3
"""Number of differences that a message names: comparisons of other data differ in a dozen."""


def read_joined(sources: Sequence[Path], *, reference: str | None = None) -> Comparison:
    """Read one comparison, or several that have the same settings, as one.

    Args:
        sources: folders of comparisons, or copies of their ``comparison.json``.
        reference: row that the other rows of its kind are compared with; None keeps that of the
            comparison.

    Raises:
        MissingFileError: if there is no comparison.
        UserError: if settings differ, two comparisons have a score of the same cell, or no row has
            the name ``reference``.
    """
    whole = read_comparison(sources[0])
    for number, source in enumerate(sources[1:], 1):
        before = " or ".join(map(str, sources[:number]))
        whole = _joined(whole, read_comparison(source), before, source)
    if len(sources) > 1:
        check_partitions(", ".join(map(str, sources)), whole)
    return whole if reference is None else _with_reference(whole, reference)


def comparison_differences(
    old: Comparison, new: Comparison, *, words: tuple[str, str] = ("there", "now")
) -> list[str]:
    """List what prevents one table of two comparisons; ``words`` as of ``settings.differences``."""
    found = settings.differences(old.settings, new.settings, words=words)
    found += content_differences(old.content, new.content)
    for kind, there, now in (("row", old.rows, new.rows), ("share", old.shares, new.shares)):
        for name in there.keys() & now.keys():
            prefix = f"{kind} {name}"
            found += settings.differences(there[name], now[name], prefix=prefix, words=words)
    return found


def _joined(first: Comparison, second: Comparison, before: str, source: Path) -> Comparison:
    different = comparison_differences(first, second, words=(f"in {before}", f"in {source}"))
    if different:
        more = f"; and {len(different) - _MOST} more" if len(different) > _MOST else ""
        raise UserError(
            "one table never mixes settings, but these comparisons have different ones: "
            f"{'; '.join(different[:_MOST])}{more}"
        )
    cells: dict[tuple[str, str, int], Result] = {cell.key: cell for cell in first.cells}
    for cell in second.cells:
        known_cell = cells.get(cell.key)
        if known_cell is not None and known_cell.status == cell.status == "done":
            raise UserError(
                f"{source} has a score of {cell.name}, and so has {before}: leave one out"
            )
        # A failure is known only to the comparison that has tried the cell.
        if known_cell is None or cell.status == "done" or known_cell.status in UNFINISHED:
            cells[cell.key] = cell
    notes = dict.fromkeys(note for note in (first.note, second.note) if note)
    return replace(
        first,
        rows={**first.rows, **second.rows},
        shares={**first.shares, **second.shares},
        references={**second.references, **first.references},
        cells=tuple(cells.values()),
        content={**second.content, **first.content},
        note="; ".join(notes),
    )


def _with_reference(comparison: Comparison, row: str) -> Comparison:
    require_choice(row, comparison.rows, name="--reference")
    group = str(comparison.rows[row]["group"])
    return replace(comparison, references={**comparison.references, group: row})
