"""A condition on a table in the user's words (SQL's WHERE), and nothing but a condition.

DuckDB parses it. Its syntax tree may differ from that of ``SELECT * FROM products WHERE (true)``
only below WHERE, and there hold only what compares, combines and computes values of one row:
no subquery, no aggregate, no function that is not listed. The database it then runs in has one
table, in memory, and no way to files, to the network or to other settings.
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

    def condition(self, text: str) -> Condition:
        """Parse and check a condition.

        Column names of several words may stand without quotes.

        Raises:
            ValueError: if it is no condition, does more than compare values of a row, or names a
                column that is not there; then with all columns, the nearest first.
        """
        if not text.strip():
            raise ValueError('an empty condition: try one such as "sand > 0.5 and sol < 100"')
        sql = self._quoted(text)
        tree, harmless = self._tree(sql, shown=text), self._tree("true", shown="true")
        where = tree.pop("where_clause", None)
        harmless.pop("where_clause")
        if tree != harmless or where is None:
            raise ValueError(f"{text!r} is more than a condition: give what stands after WHERE")
        columns = []
        for node in _expressions(where):
            self._check(node, shown=text)
            if node["class"] == "COLUMN_REF":
                columns.append(self.column(node["column_names"]))
        return Condition(sql, tuple(dict.fromkeys(columns)))

    def column(self, name: str | Sequence[str]) -> str:
        """A column's name as the table spells it.

        Raises:
            ValueError: if there is no such column; with all columns, the nearest first.
        """
        parts = [name] if isinstance(name, str) else list(name)
        given = ".".join(parts)
        by_lower = {column.lower(): column for column in self.columns}
        if given.lower() not in by_lower or len(parts) > 1:
            near = difflib.get_close_matches(given.lower(), by_lower, n=len(by_lower), cutoff=0.0)
            listed = ", ".join(by_lower[column] for column in near)
            raise ValueError(f"no column {given!r}; columns, nearest first: {listed}")
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
            ValueError: if values cannot be compared so.
        """
        where = f"FROM products WHERE ({condition.sql}\n)"
        direction = "ASC" if ascending else "DESC"
        try:
            (number,) = self._database.execute(f"SELECT count(*) {where}").fetchone() or (0,)
            found = self._database.execute(
                f"SELECT * {where} ORDER BY {_identifier(order)} {direction} NULLS LAST, name "
                "LIMIT ?",
                [top],
            )
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()], int(number)
        except duckdb.Error as error:
            raise ValueError(f"{condition.sql!r}: {_first_line(error)}") from None

    def _quoted(self, text: str) -> str:
        """Put columns of several words into quotes, outside of quotes."""
        # A name that is a number needs the user's quotes: a number is nearly always meant.
        words = [c for c in self.columns if not c.isidentifier() and not _NUMBER.fullmatch(c)]
        words.sort(key=len, reverse=True)
        if not words:
            return text
        choices = "|".join(map(re.escape, words))
        pattern = re.compile(rf"(?<!\w)(?:{choices})(?!\w)", re.IGNORECASE)
        parts = _QUOTED.split(text)
        parts[::2] = [pattern.sub(lambda m: _identifier(m[0]), part) for part in parts[::2]]
        return "".join(parts)

    def _tree(self, sql: str, *, shown: str) -> dict[str, Any]:
        whole = f"SELECT * FROM products WHERE ({sql}\n)"
        (answer,) = self._database.execute("SELECT json_serialize_sql(?)", [whole]).fetchone() or ()
        parsed = json.loads(answer)
        if parsed["error"]:
            reason = str(parsed["error_message"]).partition("\n")[0]
            raise ValueError(
                f'{shown!r} is no condition ({reason}); one such as "sand > 0.5 and sol between '
                '400 and 500", names with signs in double quotes'
            )
        if len(parsed["statements"]) != 1:
            raise ValueError(f"{shown!r} is more than one condition")
        tree: dict[str, Any] = _without_places(parsed["statements"][0]["node"])
        return tree

    def _check(self, node: dict[str, Any], *, shown: str) -> None:
        kind, name = node["class"], str(node.get("function_name", "")).lower()
        if kind not in _EXPRESSIONS:
            what = kind.lower().replace("_", " ")
            raise ValueError(f"{shown!r}: a condition holds no {what}")
        if kind == "FUNCTION" and name not in _OPERATORS and name not in _FUNCTIONS:
            near = difflib.get_close_matches(name, _FUNCTIONS, n=len(_FUNCTIONS), cutoff=0.0)
            raise ValueError(
                f"{shown!r}: no function {name}; functions, nearest first: {', '.join(near)}"
            )


def _expressions(tree: Any) -> Iterator[dict[str, Any]]:
    """Every node of a syntax tree that is an expression."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for value in tree.values():
            yield from _expressions(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _expressions(value)


def _without_places(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {
            name: _without_places(value)
            for name, value in tree.items()
            if not name.startswith("query_location")
        }
    return [_without_places(value) for value in tree] if isinstance(tree, list) else tree


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
