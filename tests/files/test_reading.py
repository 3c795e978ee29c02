"""The one door: whatever a reader raises names the file, and only regular files are opened."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s5mars.errors import DamagedFileError, MissingFileError, UserError
from s5mars.files.reading import (
    open_parquet,
    parse_yaml,
    read_json,
    read_object,
    read_text,
    read_yaml,
    reading,
    require_regular,
)


@pytest.mark.parametrize(
    "error",
    [
        IndexError("list index out of range"), OverflowError("cannot convert"), MemoryError(),
        RecursionError("too deep"), struct.error("unpack requires 4"), KeyError("size"),
        AttributeError("no attribute"), OSError("truncated"),
        OSError(errno.EINVAL, "Invalid argument"), ZeroDivisionError(), AssertionError(),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_whatever_is_raised_names_the_file(tmp_path: Path, error: Exception) -> None:
    (tmp_path / "a.bin").touch()
    with (
        pytest.raises(DamagedFileError, match=r"a\.bin: damaged thing \(.+\): mend it") as raised,
        reading(tmp_path / "a.bin", kind="thing", remedy="mend it"),
    ):
        raise error
    assert raised.value.__cause__ is error and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "error", [UserError("mine"), PermissionError(errno.EACCES, "no"), OSError(errno.ENOSPC, "full")]
)
def test_what_the_user_or_the_system_says_passes(tmp_path: Path, error: Exception) -> None:
    (tmp_path / "a.bin").touch()
    with pytest.raises(type(error)) as raised, reading(tmp_path / "a.bin"):
        raise error
    assert raised.value is error


def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "gone").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name, kind, said in (
            ("pipe", DamagedFileError, "a named pipe, not a regular file"),
            ("socket", DamagedFileError, "a socket, not a regular file"),
            ("zero", DamagedFileError, "a device, not a regular file"),
            ("gone", MissingFileError, "no such file"),
            ("pipe/a", MissingFileError, "no such file"),
            (".", UserError, "a folder"),
        ):
            with pytest.raises(kind, match=said):
                require_regular(tmp_path / name)
            for read in (read_text, read_json, read_yaml):
                with pytest.raises(kind, match=said):
                    read(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["{", "[" * 100_000, "[" * 66 + "]" * 66, "1" * 5000, b"\xff\xff", "", "nul"]
)
def test_no_json(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DamagedFileError, match=r"a\.json: damaged JSON file \("):
        read_json(path)


def test_json_of_a_usual_depth_and_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" * 64 + "]" * 64, encoding="utf-8-sig")
    assert isinstance(read_json(path), list)
    with pytest.raises(DamagedFileError, match="expected an object, got list"):
        read_object(path)


def test_the_size_of_text_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.touch()
    os.truncate(path, 1 << 40)  # sparse
    for read in (read_text, read_json, read_yaml):
        with pytest.raises(DamagedFileError, match=r"larger than the limit of [\d,]+ bytes"):
            read(path)


def test_yaml_keeps_to_its_version_1_2() -> None:
    text = "[no, yes, true, ~, 010, 1e-3, .5, 7, -3, 1:30, 2012-08-06, 0x10, .inf]"
    assert parse_yaml(text) == [
        "no", "yes", True, None, "010", 1e-3, 0.5, 7, -3, "1:30", "2012-08-06", "0x10",
        float("inf"),
    ]  # fmt: skip
    assert parse_yaml("[no, 1, ~]", as_text=True) == ["no", "1", "~"]
    with pytest.raises(ValueError, match=r"aliases such as \*a"):
        parse_yaml("[&a x, *a]")


def test_few_bytes_that_stand_for_many_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": ["x"] * 1_000_000}), path)
    said = "declares 1,000,000 rows, more than it has bytes"
    with pytest.raises(DamagedFileError, match=said), reading(path):
        open_parquet(path)
