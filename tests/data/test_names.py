"""Lists come back as they were written, and old ones are read as they always were."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import s5mars
from s5mars.data.names import as_lines, names_in


@given(st.lists(st.text(min_size=1)))
def test_what_is_written_is_read(names: list[str]) -> None:
    text = as_lines(names)
    assert names_in(text) == names


def test_ordinary_names_are_not_quoted() -> None:
    assert as_lines(["sol_1/a b", "Höhe"]) == "sol_1/a b\nHöhe\n"
    assert as_lines(["#a", " b", "c\n"]) == '"#a"\n" b"\n"c\\n"\n'


def test_lists_without_quotes_are_read_as_before() -> None:
    text = '# all\n a # the first\n\nb\n"c\n"d" e\n"f" # quoted\n'
    assert names_in(text) == ["a", "b", '"c', '"d" e', "f"]


ODD = ["#a", " b ", "c\nd", "Höhe", '"e"']


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_lists_of_odd_names_are_utf_8_in_any_locale(
    locale: str, tmp_path: Path, fake_data: ModuleType
) -> None:
    root: Path = fake_data.plain(tmp_path / "scenes", images=40, size=(32, 32))
    for number, name in enumerate([os.fsencode(name) for name in ODD] + [b"\xe9"]):
        for folder, ending in (("images", b".jpg"), ("masks", b".png")):
            (root / folder / f"sol_00{number}{os.fsdecode(ending)}").rename(
                os.fsdecode(os.path.join(os.fsencode(root / folder), name + ending))  # noqa: PTH118
            )
    for path in (root / "splits").iterdir():
        path.unlink()
    (root / "splits").rmdir()
    environment = {
        **os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
    }  # fmt: skip
    for command in (
        ["stats", root, "--out", tmp_path / "stats"],
        ["split", root, "--labelled", "0.5", "--out", tmp_path / "lists"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "s5mars", *command], env=environment, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
    names = {
        name
        for path in (root / "splits").iterdir()
        for name in names_in(path.read_text(encoding="utf-8"))
    }
    assert {*ODD, "%E9"} < names
    splits = s5mars.open_dataset(root).splits
    assert {sample.name for samples in splits.values() for sample in samples} == names
