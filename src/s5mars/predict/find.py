"""Find the products of an index that satisfy a condition; show them as table and sheet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s5mars.classes import Taxonomy
from s5mars.errors import UserError
from s5mars.files import given_path
from s5mars.files.spreadsheet import csv_text
from s5mars.predict.condition import Condition, Products
from s5mars.predict.index import class_columns, read_index
from s5mars.predict.sheet import Tile, check_ending, refuse_overwriting_index, write_sheet


@dataclass(frozen=True)
class Found:
    """Products that satisfy a condition."""

    rows: Sequence[Mapping[str, Any]]  # all columns of the index
    number: int  # of all products that satisfy the condition
    total: int  # number of products in the index
    order: str  # column
    ascending: bool
    columns: tuple[str, ...]  # of the index
    shown: tuple[str, ...]  # columns of the printed table
    sheet: Path | None = None  # the contact sheet, if one was drawn
    # Text columns of a condition that nothing satisfies → the values that they have.
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """One line for the user."""
        first = "smallest" if self.ascending else "largest"
        order = f", {first} {self.order} first" if self.rows else ""
        cut = f", showing the first {len(self.rows)}" if len(self.rows) < self.number else ""
        drawn = f"; {self.sheet}" if self.sheet else ""
        values = "".join(f"; {c} is {' or '.join(map(repr, v))}" for c, v in self.texts.items())
        return f"{self.number} of {self.total} products{order}{cut}{drawn}{values}"

    def text(self, form: str = "table") -> str:
        """Format the rows as a table of the columns ``shown``, or all columns as CSV or JSON."""
        if form == "json":
            return json.dumps([dict(row) for row in self.rows], indent=1, ensure_ascii=False)
        if form == "csv":
            lines = [self.columns, *([row[c] for c in self.columns] for row in self.rows)]
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
    only: Sequence[str] | None = None,
) -> Found:
    """Find the products of an output folder that satisfy a condition.

    Args:
        maps: output folder of ``s5mars predict``.
        condition: an SQL condition (as after WHERE) on the columns of ``index.parquet``; the column
            of a class holds its fraction of the pixels with data.
        sort: column to sort by, in descending order; None sorts by the first class in the
            condition, or by name in ascending order if it contains no class.
        sheet: path to an image file for a contact sheet of overlays; not written if no product
            satisfies the condition.
        only: classes that the sheet colours; none named: those of the condition; None: all.

    Raises:
        MissingFileError: if there is no index.
        UserError: if the index is damaged, the condition is invalid, a column or class does not
            exist, the extension of the sheet is not supported, or the sheet would overwrite a
            product or map of the index.
    """
    if only is not None and sheet is None:
        raise UserError("--only needs --sheet, because it colours the sheet")
    if top < 1:
        raise UserError(f"--top must be at least 1 (got {top})")
    if sheet is not None:
        check_ending(Path(sheet))
    folder = given_path(maps)
    table, taxonomy = read_index(folder)
    if sheet is not None:
        root = folder if folder.is_dir() else folder.parent
        refuse_overwriting_index(Path(sheet), table, maps=root)
    products = Products(table)
    checked = products.condition(condition)
    classes = class_columns(taxonomy)
    if sort is not None:
        order = products.column(sort)
    else:
        order = next((c for c in checked.columns if c.removeprefix("largest_") in classes), "name")
        ascending = ascending or order == "name"
    coloured = None if only is None else _coloured(only, products, checked, taxonomy)
    rows, number = products.rows(checked, order=order, ascending=ascending, top=top)
    matter = dict.fromkeys(("name", "sol", "camera", *checked.columns, order))
    drawn = Path(sheet) if sheet is not None and rows else None
    if drawn is not None:
        about = [c for c in matter if c not in ("name", "path")]
        tiles = [
            Tile(
                name=str(row["name"]),
                path=Path(str(row["path"])),
                caption=" · ".join(f"{c} {_cell(row[c])}" for c in about if row[c] is not None),
            )
            for row in rows
        ]
        write_sheet(drawn, tiles, maps=root, taxonomy=taxonomy, only=coloured)
    texts = {} if number else products.texts(checked)
    every = tuple(products.columns)
    return Found(rows, number, len(table), order, ascending, every, tuple(matter), drawn, texts)


def _coloured(
    only: Sequence[str], products: Products, checked: Condition, taxonomy: Taxonomy
) -> list[str]:
    """The names of the classes that a sheet colours."""
    names = dict(zip(class_columns(taxonomy), taxonomy.names, strict=True))
    columns = [_column_of(name, names, products) for name in only] or checked.columns
    found = [names[c] for c in (c.removeprefix("largest_") for c in columns) if c in names]
    if len(found) < max(1, len(only)):
        raise UserError(f"--only needs a class: {', '.join(taxonomy.names)}")
    return found


def _column_of(name: str, names: Mapping[str, str], products: Products) -> str:
    # Classes go first: one may be named like a column about the product, such as rover.
    for equal in (str, str.lower):
        for column, known in names.items():
            if equal(known) == equal(name):
                return column
    return products.column(name)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
