"""Asking an index: which products fulfil a condition, as a table and as a sheet of pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s5mars.errors import UserError
from s5mars.files.spreadsheet import csv_text
from s5mars.predict.condition import Products
from s5mars.predict.index import class_columns, read_index
from s5mars.predict.sheet import Tile, check_ending, write_sheet

FORMATS = ("table", "csv", "json")


@dataclass(frozen=True)
class Found:
    """The answer to a condition."""

    rows: Sequence[Mapping[str, Any]]  # all columns of the index
    number: int  # of all products that fulfil it
    total: int  # products in the index
    order: str  # column
    ascending: bool
    shown: tuple[str, ...]  # columns that matter to a reader
    sheet: Path | None = None  # the picture, where one was asked for and there was a product

    @property
    def summary(self) -> str:
        """One line about the answer."""
        first = "smallest" if self.ascending else "largest"
        order = f", {first} {self.order} first" if self.rows else ""
        cut = f", the first {len(self.rows)} shown" if len(self.rows) < self.number else ""
        drawn = f"; {self.sheet}" if self.sheet else ""
        return f"{self.number} of {self.total} products{order}{cut}{drawn}"

    def text(self, form: str = "table") -> str:
        """The rows as an aligned table of the columns that matter, or whole as CSV or JSON."""
        if form == "json":
            return json.dumps([dict(row) for row in self.rows], indent=1, ensure_ascii=False)
        if form == "csv":
            columns = list(self.rows[0]) if self.rows else list(self.shown)
            lines = [columns, *([row[c] for c in columns] for row in self.rows)]
            return csv_text(lines).rstrip("\n")
        cells = [list(self.shown), *([_cell(row[c]) for c in self.shown] for row in self.rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(self.shown))]
        return "\n".join(
            "  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in cells
        )


def find(
    maps: str | Path,
    condition: str,
    *,
    top: int = 20,
    sort: str | None = None,
    ascending: bool = False,
    sheet: str | Path | None = None,
) -> Found:
    """Products of an output folder that fulfil a condition.

    Args:
        maps: a folder that ``s5mars predict`` made.
        condition: as after SQL's WHERE, on the columns of ``index.parquet``; a class's name is its
            share of the pixels with data.
        top: at most so many rows.
        sort: the column to sort by, largest first; None takes the first class that the condition
            names, and the order of names (ascending) where it names none.
        ascending: smallest first.
        sheet: an image file for a sheet of overlays with captions; without any product it is not
            written.

    Raises:
        MissingFileError: if there is no index.
        UserError: if the index is damaged, the condition is none, a column is not there, or the
            sheet has the ending of no picture.
    """
    if top < 1:
        raise UserError(f"the top {top}: the least is 1")
    if sheet is not None:
        check_ending(Path(sheet))
    folder = Path(maps)
    table, taxonomy = read_index(folder)
    products = Products(table)
    checked = products.condition(condition)
    classes = class_columns(taxonomy)
    if sort is not None:
        order = products.column(sort)
    else:
        named = (c for c in checked.columns if c.removeprefix("largest_") in classes)
        order = next(named, "name")
        ascending = ascending or order == "name"
    rows, number = products.rows(checked, order=order, ascending=ascending, top=top)
    matter = dict.fromkeys(("name", "sol", "camera", *checked.columns, order))
    drawn = Path(sheet) if sheet is not None and rows else None
    if drawn is not None:
        root = folder if folder.is_dir() else folder.parent
        about = [c for c in matter if c not in ("name", "path")]
        tiles = [
            Tile(
                name=str(row["name"]),
                path=Path(str(row["path"])),
                caption=" · ".join(f"{c} {_cell(row[c])}" for c in about if row[c] is not None),
            )
            for row in rows
        ]
        write_sheet(drawn, tiles, maps=root, taxonomy=taxonomy)
    return Found(rows, number, len(table), order, ascending, tuple(matter), drawn)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
