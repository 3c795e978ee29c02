"""Files are whole or absent, whatever goes wrong while they are written."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from s5mars.errors import UserError
from s5mars.files import (
    below,
    is_disk_full,
    printable,
    put_folder,
    replacing,
    write_json,
    write_text,
)


def test_appears_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent  # a rename works within one file system only
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_fits_into_an_empty_one_on_another_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a mounted volume is, which cannot be replaced either."""

    def refuse(*paths: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    new, out = tmp_path / "new", tmp_path / "out"
    out.mkdir()
    (new / "images").mkdir(parents=True)
    for name in ("images/a.jpg", "dataset.yaml"):
        (new / name).write_text(name)
    monkeypatch.setattr(os, "rename", refuse)
    put_folder(new, out, last="dataset.yaml")
    assert [(out / name).read_text() for name in ("images/a.jpg", "dataset.yaml")] == [
        "images/a.jpg", "dataset.yaml",
    ]  # fmt: skip


def test_the_content_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a crash of the machine may leave an empty file in the place of the old one."""
    done: list[tuple[str, int]] = []
    rename = Path.replace

    def renamed(path: Path, target: Path) -> Path:
        done.append(("rename", path.stat().st_ino))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", lambda file: done.append(("sync", os.fstat(file).st_ino)))
    monkeypatch.setattr(Path, "replace", renamed)
    write_text(tmp_path / "a.txt", "one")
    number = (tmp_path / "a.txt").stat().st_ino
    assert done == [("sync", number), ("rename", number)]


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), OSError("x")])
def test_a_failure_keeps_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_in_words(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with (
        pytest.raises(OSError, match=r"the disk is full and .*a\.txt was not written"),
        replacing(path) as temporary,
    ):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_seen_behind_the_error_that_follows_it() -> None:
    later = RuntimeError("unexpected pos 140224 vs 140120")
    assert not is_disk_full(later)
    later.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert is_disk_full(later)


def test_text_and_json(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "Gediz Vallis – Höhe\n")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "Gediz Vallis – Höhe\n"
    value = {"b": [1, None, 2.5], "a": "Höhe"}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert list(json.loads(text)) == ["b", "a"] and "Höhe" in text
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "..", "/etc/x", "//x", "", ".", "a\0b", "C:/x", "C:x", None, b"x", 3],
)
def test_names_that_lead_elsewhere_are_refused(name: object, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^list\.json: .* is not a file name inside its folder"):
        below(tmp_path, name, source="list.json")


@pytest.mark.parametrize("name", ["x", "a/b.png", "a..b", "...", "~2/x", " x", "a\nb", "#a", "ü"])
def test_other_names_are_joined(name: str, tmp_path: Path) -> None:
    assert below(tmp_path, name, source="list.json") == tmp_path / name


def test_names_that_are_not_utf_8() -> None:
    assert printable("Höhe") == "Höhe"
    assert printable(b"a\xe9b".decode("utf-8", "surrogateescape")) == "a%E9b"
    assert printable("Höhe".encode().decode("ascii", "surrogateescape")) == "Höhe"


def test_text_of_such_names_is_utf_8_and_their_json_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", ["a\udce9", "ü"])
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == ["a\udce9", "ü"]
