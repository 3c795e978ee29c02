"""Evaluate a user's SQL condition (as after WHERE) on a table, safely.

DuckDB parses the condition as the single expression of a filter, so that no other statement or
clause fits in. It may only compare, combine and compute values of one row: no subquery, no
aggregate, no function that is not listed. The database has one table in memory and no access to
files, the network or other settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from s5mars.errors import UserError, first_line, nearest_first

_EXPRESSIONS = {
    "BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION",
    "OPERATOR", "TYPE",
}  # fmt: skip
_OPERATORS = {"+", "-", "*", "/", "//", "%", "||", "~~", "!~~", "~~*", "!~~*"}
_FUNCTIONS = (
    "abs", "ceil", "coalesce", "contains", "ends_with", "floor", "greatest", "least", "length",
    "like_escape", "lower", "not_like_escape", "regexp_matches", "round", "starts_with", "upper",
)  # fmt: skip
_KEYWORDS = {
    "and", "or", "not", "like", "in", "is", "between", "case", "when", "then", "else", "end",
}  # fmt: skip
"""Words that are not taken for a part of a name, as in "sand or rock"."""

_EXAMPLE = (
    'give one such as "sand > 0.5 and sol < 100", with double quotes around names with special '
    "characters"
)

_FEW_VALUES = 8
_NUMBER = re.compile(r"[\d_.]+(e[+-]?\d+)?", re.IGNORECASE)
_QUOTED = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")""")


@dataclass(frozen=True)
class Condition:
    """A checked condition."""

    sql: str
    columns: tuple[str, ...]  # columns in the condition, in order, spelled as in the table


class Products:
    """A table in its own database, which can only be filtered by conditions.

    Args:
        table: copied into memory; its column names must be unique when case is ignored.
    """

    def __init__(self, table: pa.Table) -> None:
        self.columns: list[str] = table.column_names
        self._database = duckdb.connect(":memory:").register("given", table)
        self._database.execute(
            "CREATE TABLE products AS FROM given; SET python_enable_replacements = false; "
            "SET enable_external_access = false; SET lock_configuration = true"
        )
        self._database.unregister("given")
        self._products = self._database.table("products")

    def condition(self, text: str) -> Condition:
        """Parse and check a condition; column names of several words need no quotes.

        Raises:
            UserError: if it is not a condition, does more than compare values of a row, or uses an
                unknown column (the message lists all columns, nearest first).
        """
        if not text.strip():
            raise UserError('the condition is empty; give one such as "sand > 0.5 and sol < 100"')
        sql = self._quoted(text)
        try:
            self._products.filter(sql)
        except duckdb.ParserException as error:
            remedy = self._with_quoted_values(text) or _without_percent(text) or _EXAMPLE
            raise UserError(
                f"{text!r} is not a condition ({first_line(error)}); {remedy}"
            ) from None
        except duckdb.Error:
            pass  # reported better below, or when rows are selected
        query = self._database.execute("SELECT json_serialize_sql(?)", [f"SELECT ({sql}\n)"])
        columns = []
        for node in _expressions(json.loads(query.fetchall()[0][0])["statements"]):
            kind, name = node["class"], str(node.get("function_name", "")).lower()
            if kind not in _EXPRESSIONS:
                said = kind.lower().replace("_", " ")
                raise UserError(f"{text!r}: {said} is not allowed in a condition")
            if name and name not in _OPERATORS and name not in _FUNCTIONS:
                near = ", ".join(nearest_first(name, _FUNCTIONS))
                raise UserError(f"{text!r}: unknown function {name}; nearest first: {near}")
            if kind == "COLUMN_REF":
                columns.append(self._column_of(text, ".".join(node["column_names"])))
        return Condition(sql, tuple(dict.fromkeys(columns)))

    def column(self, name: str) -> str:
        """Return a column name as spelled in the table.

        Raises:
            UserError: if the column does not exist (the message lists all, nearest first).
        """
        by_lower = {column.lower(): column for column in self.columns}
        if name.lower() not in by_lower:
            near = ", ".join(nearest_first(name, self.columns))
            raise UserError(f"unknown column {name!r}; nearest first: {near}")
        return by_lower[name.lower()]

    def texts(self, condition: Condition) -> dict[str, list[str]]:
        """The values of the text columns of a condition, where a column has few."""
        found = {}
        for column in condition.columns:
            if column in self._texts:
                values = self._products.unique(_identifier(column)).limit(_FEW_VALUES + 1)
                known = sorted(value for (value,) in values.fetchall() if value is not None)
                if 0 < len(known) <= _FEW_VALUES:
                    found[column] = known
        return found

    def rows(
        self, condition: Condition, *, order: str, ascending: bool, top: int
    ) -> tuple[list[dict[str, Any]], int]:
        """Select the rows that satisfy a condition.

        Args:
            condition: returned by ``condition``.
            order: column to sort by; ties are sorted by the column ``name``, and null comes last.

        Returns:
            The selected rows and the number of all rows that satisfy the condition.

        Raises:
            UserError: if the values cannot be compared.
        """
        direction = "ASC" if ascending else "DESC"
        try:
            every = self._products.filter(condition.sql)
            found = every.order(f"{_identifier(order)} {direction} NULLS LAST, name").limit(top)
            rows = [dict(zip(self.columns, row, strict=True)) for row in found.fetchall()]
            return rows, len(every)
        except duckdb.BinderException:
            remedy = "a text needs single quotes, as in \"name like '%1030%'\""
            hiding = {f"class {c}".lower() for c in condition.columns if c in self._texts}
            if shares := [repr(column) for column in self.columns if column.lower() in hiding]:
                remedy += f"; columns of classes with the name of another are {', '.join(shares)}"
            raise UserError(
                f"{condition.sql!r} uses a text as a number, or a number as a text: {remedy}"
            ) from None
        except duckdb.Error as error:
            raise UserError(f"{condition.sql!r}: {first_line(error)}") from None

    @property
    def _texts(self) -> list[str]:
        """The columns of text."""
        kinds = zip(self.columns, self._products.types, strict=True)
        return [column for column, kind in kinds if str(kind) == "VARCHAR"]

    def _column_of(self, text: str, name: str) -> str:
        try:
            return self.column(name)
        except UserError as error:
            if quotes := self._with_quoted_values(text):
                raise UserError(f"unknown column {name!r}; {quotes}") from None
            raise error from None

    def _with_quoted_values(self, text: str) -> str:
        """What to write if texts have no quotes or double ones; else empty."""
        columns = "|".join(map(re.escape, self._texts))
        compared = re.compile(
            rf"(?<![\w.])({columns})(\s*(?:=|==|!=|<>|\blike\b|\bnot like\b)\s*)"
            r"(?:\"([^'\"]*)\"|([^\W\d][^'\"()]*?))(?=\s+(?:and|or)\b|\s*\)|\s*$)",
            re.IGNORECASE,
        )
        said = compared.sub(lambda m: f"{m[1]}{m[2]}'{m[3] or m[4] or ''}'", text)
        try:
            self._products.filter(self._quoted(said))
        except duckdb.Error:
            return ""
        return f'a text needs single quotes: "{said}"' if said != text else ""

    def _quoted(self, text: str) -> str:
        """Quote column names of several words, which spaces or underscores may separate."""
        # A column named like a number needs quotes, as a number is nearly always meant.
        words = {
            c.lower(): c for c in self.columns if not c.isidentifier() and not _NUMBER.fullmatch(c)
        }
        known = {column.lower() for column in self.columns}
        for column in self.columns:
            for form in (column.replace("_", " "), column.replace(" ", "_")):
                if form.lower() not in known and not _KEYWORDS & set(form.lower().split()):
                    words.setdefault(form.lower(), column)
        if not words:
            return text
        choices = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
        pattern = re.compile(rf"(?<!\w)(?:{choices})(?!\w)", re.IGNORECASE)
        parts = _QUOTED.split(text)
        parts[::2] = [
            pattern.sub(lambda m: _identifier(words[m[0].lower()]), part) for part in parts[::2]
        ]
        return "".join(parts)


def _expressions(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for value in tree:
            yield from _expressions(value)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _without_percent(text: str) -> str:
    """What to write instead of a share in percent; else empty."""
    said = re.sub(r"(\d+(?:\.\d+)?) ?%", lambda m: f"{float(m[1]) / 100:g}", text)
    return f'shares are fractions: "{said}"' if said != text else ""
