"""The one door for everything that is decoded or parsed.

Decoders and parsers raise what they like over a bad file: ``IndexError``, ``OverflowError``,
``struct.error``, ``RecursionError``. ``reading`` turns all of it into one ``DamagedFileError`` that
names the file, and lets nothing but regular files through: a pipe would wait for ever, a device
never end. What a small file can grow into is limited before memory is taken.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from s5mars.errors import WAY_OUT, DamagedFileError, MissingFileError, UserError, first_line

if TYPE_CHECKING:
    import pyarrow.parquet as pq

MAX_TEXT = 64 << 20
"""Bytes of a JSON file or a list: parsed, it takes some twenty times as much memory."""

MAX_YAML = 1 << 20
"""Bytes of a YAML file, whose parser is slow."""

MAX_DEPTH = 64
"""Of lists and mappings in each other."""

_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


_OF_DAMAGE = (None, errno.EINVAL, errno.EOVERFLOW, errno.EFBIG)
"""Numbers of the OSErrors that libraries raise of their own, or that lying offsets lead to."""


@contextmanager
def reading(path: Path, *, kind: str = "file", way_out: str = WAY_OUT) -> Iterator[None]:
    """Whatever goes wrong with a file inside the block is the file's fault, and says so.

    Also what is made of the parsed content belongs into the block, such as looking up its keys.

    Args:
        path: the file.
        kind: what it should be, such as ``"image"``, for the message.
        way_out: what the user can do about it, for the message.

    Raises:
        MissingFileError: if there is no such file.
        DamagedFileError: if it is no regular file, or the block raised anything else than what
            follows.
        UserError, OSError: as they are; of the latter only what the system reports.
    """
    require_regular(path)
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in _OF_DAMAGE:
            raise
        raise DamagedFileError(f"{path}: damaged {kind} ({reason_of(error)}): {way_out}") from error


def require_regular(path: Path) -> None:
    """Refuse what is no regular file, without opening it.

    Raises:
        MissingFileError: if there is nothing of this name.
        DamagedFileError: if it is a pipe, a socket or a device.
        UserError: if it is a folder.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(f"{path}: no such file") from None
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: a folder; a file is needed here")
    special = special_kind(mode)
    if special is not None:
        raise DamagedFileError(f"{path}: {special}, not a regular file: leave it out")


def special_kind(mode: int) -> str | None:
    """What a file of this mode is, in words; None for regular files and folders."""
    return None if stat.S_ISREG(mode) else _SPECIAL.get(stat.S_IFMT(mode))


def reason_of(error: BaseException) -> str:
    """An error of a library in a few words of one line."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, KeyError) and " " not in str(error):
        return f"unknown or missing {error}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    line = first_line(error)
    return line if " " in line else f"{type(error).__name__} {line}".strip()


def read_text(path: Path, *, kind: str = "text file", way_out: str = WAY_OUT) -> str:
    """A text file in UTF-8, of at most ``MAX_TEXT`` bytes; raises as ``reading``."""
    with reading(path, kind=kind, way_out=way_out):
        return _text(path, limit=MAX_TEXT)


def read_json(
    path: Path, *, kind: str = "JSON file", way_out: str = WAY_OUT, limit: int = MAX_TEXT
) -> Any:
    """What a JSON file of at most ``limit`` bytes holds; raises as ``reading``."""
    with reading(path, kind=kind, way_out=way_out):
        return parse_json(_text(path, limit=limit))


def read_object(path: Path, *, kind: str = "JSON file", way_out: str = WAY_OUT) -> dict[str, Any]:
    """A JSON file that must hold an object; raises as ``reading``."""
    with reading(path, kind=kind, way_out=way_out):
        return object_in(path)


def object_in(path: Path) -> dict[str, Any]:
    """``read_object`` for use inside ``reading``, whose words are then used."""
    return parse_object(_text(path, limit=MAX_TEXT))


def parse_json(text: str | bytes) -> Any:
    """What JSON holds; for use inside ``reading``.

    Raises:
        ValueError: if it is no JSON, or nested more than ``MAX_DEPTH`` deep.
        RecursionError: if it is nested so deep that it cannot be parsed.
    """
    value = json.loads(text)
    level, depth = [value], 0
    while level := [
        inner
        for outer in level
        if isinstance(outer, list | dict)
        for inner in (outer.values() if isinstance(outer, dict) else outer)
    ]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
    return value


def parse_object(text: str | bytes) -> dict[str, Any]:
    """``parse_json``, which must give an object."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError(f"an object is needed, not {type(value).__name__}")
    return value


def read_yaml(path: Path, *, way_out: str = "correct it", as_text: bool = False) -> Any:
    """What a YAML file holds; raises as ``reading``.

    Args:
        path: of at most ``MAX_YAML`` bytes.
        way_out: what the user can do about a bad one.
        as_text: leave every value the text that is written there: also ``1`` and ``null``.
    """
    with reading(path, kind="YAML file", way_out=way_out):
        return parse_yaml(_text(path, limit=MAX_YAML), as_text=as_text)


def parse_yaml(text: str, *, as_text: bool = False) -> Any:
    """What YAML holds, by the rules of YAML 1.2: ``no`` is a word; for use inside ``reading``.

    Raises:
        ValueError: if it has aliases, a few of which, nested, are enough to fill any memory, or is
            nested more than ``MAX_DEPTH`` deep.
        yaml.YAMLError: if it is no YAML.
    """
    loader = yaml.BaseLoader if as_text else _Loader
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"aliases such as *{event.anchor} are not read: write the value there")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
    return yaml.load(text, Loader=loader)


class _Loader(yaml.SafeLoader):
    """PyYAML's rules are those of YAML 1.1, where ``no`` is false and 1e-3 a word."""


_Loader.yaml_implicit_resolvers = {}

for _tag, _pattern, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?[0-9]+[eE][-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file, whose footer is read; for use inside ``reading``.

    Raises:
        ValueError: if it declares more rows than it has bytes: a few bytes can stand for billions
            of rows, but all that this package writes and reads differ from row to row.
    """
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path, page_checksum_verification=True)
    if file.metadata.num_rows > os.path.getsize(path):  # noqa: PTH202
        raise ValueError(f"it declares {file.metadata.num_rows:,} rows, more than it has bytes")
    return file


def _text(path: Path, *, limit: int) -> str:
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"more than the {limit:,} bytes that are read")
    return content.decode("utf-8-sig")
