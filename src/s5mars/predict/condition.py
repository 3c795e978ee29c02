"""A condition on a table in the user's words (SQL's WHERE), and nothing but a condition.

DuckDB parses it as the one expression of a filter, so that no other statement or clause fits in. It
may hold only what compares, combines and computes values of one row: no subquery, no aggregate, no
function that is not listed. The database has one table, in memory, and no way to files, to the
network or to other settings.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from s5mars.errors import UserError, first_line

_EXPRESSIONS = {
    "BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION",
    "OPERATOR",
}  # fmt: skip
_OPERATORS = {"+", "-", "*", "/", "//", "%", "||", "~~", "!~~", "~~*", "!~~*"}
_FUNCTIONS = (
    "abs", "ceil", "coalesce", "contains", "ends_with", "floor", "greatest", "least", "length",
    "like_escape", "lower", "not_like_escape", "regexp_matches", "round", "starts_with", "upper",
)  # fmt: skip
_NUMBER = re.compile(r"[\d_.]+(e[+-]?\d+)?", re.IGNORECASE)
_QUOTED = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")""")


@dataclass(frozen=True)
class Condition:
    """A checked condition."""

    sql: str
    columns: tuple[str, ...]  # that it names, in their order, spelled as in the table


class Products:
    """A table in a database of its own that answers conditions and does nothing else."""

    def __init__(self, table: pa.Table) -> None:
        """Copy a table into memory; its column names must differ in more than their case."""
        self.columns: list[str] = table.column_names
        self._database = duckdb.connect(":memory:")
        self._database.register("given", table)
        self._database.execute("CREATE TABLE products AS SELECT * FROM given")
        self._database.unregister("given")
        for setting in (
            "python_enable_replacements = false",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            self._database.execute(f"SET {setting}")
        self._products = self._database.table("products")

    def condition(self, text: str) -> Condition:
        """Parse and check a condition.

        Column names of several words may stand without quotes.

        Raises:
            UserError: if it is no condition, does more than compare values of a row, or names a
                column that is not there; then with all columns, the nearest first.
        """
        if not text.strip():
            raise UserError('an empty condition: try one such as "sand > 0.5 and sol < 100"')
        sql = self._quoted(text)
        try:
            self._products.filter(sql)
        except duckdb.ParserException as error:
            raise UserError(
                f'{text!r} is no condition ({first_line(error)}); one such as "sand > 0.5 and sol '
                'between 400 and 500", names with signs in double quotes'
            ) from None
        except duckdb.Error:
            pass  # most of it is said in better words below, the rest where rows are asked for
        ((tree,),) = self._database.execute(
            "SELECT json_serialize_sql(?)", [f"SELECT ({sql}\n)"]
        ).fetchall()
        columns = []
        for node in _expressions(json.loads(tree)["statements"][0]["node"]["select_list"]):
            _check(node, shown=text)
            if node["class"] == "COLUMN_REF":
                columns.append(self.column(node["column_names"]))
        return Condition(sql, tuple(dict.fromkeys(columns)))

    def column(self, name: str | Sequence[str]) -> str:
        """A column's name as the table spells it.

        Raises:
            UserError: if there is no such column; with all columns, the nearest first.
        """
        parts = [name] if isinstance(name, str) else list(name)
        given = ".".join(parts)
        by_lower = {column.lower(): column for column in self.columns}
        if given.lower() not in by_lower or len(parts) > 1:
            listed = ", ".join(by_lower[column] for column in _nearest(given.lower(), by_lower))
            raise UserError(f"no column {given!r}; columns, nearest first: {listed}")
        return by_lower[given.lower()]

    def rows(
        self, condition: Condition, *, order: str, ascending: bool, top: int
    ) -> tuple[list[dict[str, Any]], int]:
        """Rows that fulfil a condition.

        Args:
            condition: from ``condition``.
            order: a column; equal and null values in the order of the column ``name``, null last.
            ascending: smallest first.
            top: at most so many rows.

        Returns:
            the rows and the number of all that fulfil it.

        Raises:
            UserError: if values cannot be compared so.
        """
        direction = "ASC" if ascending else "DESC"
        try:
            every = self._products.filter(condition.sql)
            ((number,),) = every.aggregate("count(*)").fetchall()
            found = every.order(f"{_identifier(order)} {direction} NULLS LAST, name").limit(top)
            rows = [dict(zip(self.columns, row, strict=True)) for row in found.fetchall()]
        except duckdb.Error as error:
            raise UserError(f"{condition.sql!r}: {first_line(error)}") from None
        return rows, int(number)

    def _quoted(self, text: str) -> str:
        """Put columns of several words into quotes, outside of quotes."""
        # A name that is a number needs the user's quotes: a number is nearly always meant.
        words = [c for c in self.columns if not c.isidentifier() and not _NUMBER.fullmatch(c)]
        if not words:
            return text
        choices = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
        pattern = re.compile(rf"(?<!\w)(?:{choices})(?!\w)", re.IGNORECASE)
        parts = _QUOTED.split(text)
        parts[::2] = [pattern.sub(lambda m: _identifier(m[0]), part) for part in parts[::2]]
        return "".join(parts)


def _check(node: dict[str, Any], *, shown: str) -> None:
    kind, name = node["class"], str(node.get("function_name", "")).lower()
    if kind not in _EXPRESSIONS:
        raise UserError(f"{shown!r}: a condition holds no {kind.lower().replace('_', ' ')}")
    if kind == "FUNCTION" and name not in _OPERATORS and name not in _FUNCTIONS:
        listed = ", ".join(_nearest(name, _FUNCTIONS))
        raise UserError(f"{shown!r}: no function {name}; functions, nearest first: {listed}")


def _expressions(tree: Any) -> Iterator[dict[str, Any]]:
    """Every node of a syntax tree that is an expression."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for value in tree:
            yield from _expressions(value)


def _nearest(name: str, among: Sequence[str] | dict[str, str]) -> list[str]:
    return difflib.get_close_matches(name, among, n=len(among), cutoff=0.0)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
