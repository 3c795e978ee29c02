"""Imports point up the table of packages in CONTRIBUTING.md, and the root has few modules."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
SOURCE = PROJECT / "src" / "s5mars"
AT_MOST_IN_ROOT = 8


def rows() -> dict[str, int]:
    """Package or module of the table → its row."""
    text = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`[^|]+) \|", text, re.M)
    names = [re.findall(r"`(\w+)(?:/|\.py)`", cell) for cell in cells]
    return {name: row for row, group in enumerate(names) for name in group}


def imported(tree: ast.AST) -> Iterator[str]:
    """Packages that are imported when a module is; functions may import later what they need."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("s5mars."):
            yield str(node.module).split(".")[1]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imported(node)


def test_imports_point_up_the_table_of_packages() -> None:
    row_of = rows()
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        package = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if package.startswith("__"):
            continue
        for other in imported(ast.parse(path.read_text(encoding="utf-8"))):
            if package != other and row_of[other] > row_of[package]:
                wrong.append(f"{path.relative_to(SOURCE)} imports {other}")
    assert not wrong


def test_every_package_is_in_the_table() -> None:
    there = {path.name.removesuffix(".py") for path in SOURCE.iterdir() if path.name != "py.typed"}
    assert {name for name in there if not name.startswith("__")} == rows().keys()


def test_the_root_has_few_modules() -> None:
    assert len(list(SOURCE.glob("*.py"))) <= AT_MOST_IN_ROOT
