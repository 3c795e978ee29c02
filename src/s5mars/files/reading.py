"""Guards everything that is decoded or parsed.

Decoders and parsers raise any exception for a bad file: ``IndexError``, ``OverflowError``,
``struct.error``, ``RecursionError``. ``reading`` converts them to a ``DamagedFileError`` that names
the file. It accepts only regular files, because a pipe may block and a device may never end. Sizes
are limited before memory is allocated.
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

from s5mars.errors import REMEDY, DamagedFileError, MissingFileError, UserError, first_line

if TYPE_CHECKING:
    import pyarrow.parquet as pq

MAX_TEXT = 64 << 20
"""Maximum size of a JSON file or a list in bytes; parsed, it takes about 20 times the memory."""

MAX_YAML = 1 << 20
"""Maximum size of a YAML file in bytes; its parser is slow."""

MAX_DEPTH = 64
"""Maximum nesting of lists and mappings."""

_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


_DAMAGE_ERRNOS = (None, errno.EINVAL, errno.EOVERFLOW, errno.EFBIG)
"""errno of OSErrors that libraries raise themselves or that wrong offsets cause."""


@contextmanager
def reading(path: Path, *, kind: str = "file", remedy: str = REMEDY) -> Iterator[None]:
    """Convert exceptions in the block, which reads a file, to errors that name the file.

    The block should also contain the use of the parsed content, such as looking up its keys.

    The message names the expected ``kind``, such as ``"image"``, and what the user can do.

    Raises:
        MissingFileError: if the file does not exist.
        DamagedFileError: if it is not a regular file, or the block raised any other exception than
            the following.
        UserError, OSError: raised unchanged; OSErrors only if the operating system reports them.
    """
    require_regular(path)
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in _DAMAGE_ERRNOS:
            raise
        raise DamagedFileError(f"{path}: damaged {kind} ({reason_of(error)}): {remedy}") from error


def require_regular(path: Path) -> None:
    """Check that a path is a regular file, without opening it.

    Raises:
        MissingFileError: if the path does not exist.
        DamagedFileError: if it is a pipe, a socket or a device.
        UserError: if it is a folder.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(f"{path}: no such file") from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise MissingFileError(f"{path} is a link that leads to itself: leave it out") from None
    if stat.S_ISDIR(mode):
        raise UserError(f"{path} is a folder: give a file")
    special = special_kind(mode)
    if special is not None:
        raise DamagedFileError(f"{path} is {special}, not a regular file: leave it out")


def special_kind(mode: int) -> str | None:
    """Name of the kind of a special file; None for regular files and folders."""
    return None if stat.S_ISREG(mode) else _SPECIAL.get(stat.S_IFMT(mode))


def reason_of(error: BaseException) -> str:
    """One short line about an exception of a library."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, KeyError) and " " not in str(error):
        return f"unknown or missing {error}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    line = first_line(error)
    return line if " " in line else f"{type(error).__name__} {line}".strip()


def require_format(path: Path, found: object, known: int) -> None:
    """Check the number of a file's format.

    Raises:
        UserError: if it is not ``known``, as in a file of a newer version.
    """
    if found != known:
        raise UserError(
            f"{path} has format {found!r}, this version reads {known}: update s5mars, or make the "
            "file again"
        )


def read_text(path: Path, *, kind: str = "text file", remedy: str = REMEDY) -> str:
    """Read a UTF-8 text file of at most ``MAX_TEXT`` bytes; raises as ``reading``."""
    with reading(path, kind=kind, remedy=remedy):
        return _text(path, limit=MAX_TEXT)


def read_json(
    path: Path, *, kind: str = "JSON file", remedy: str = REMEDY, limit: int = MAX_TEXT
) -> Any:
    """Read a JSON file of at most ``limit`` bytes; raises as ``reading``."""
    with reading(path, kind=kind, remedy=remedy):
        return parse_json(_text(path, limit=limit))


def read_object(path: Path, *, kind: str = "JSON file", remedy: str = REMEDY) -> dict[str, Any]:
    """Read a JSON file that contains an object; raises as ``reading``."""
    with reading(path, kind=kind, remedy=remedy):
        return object_in(path)


def object_in(path: Path) -> dict[str, Any]:
    """As ``read_object``, for use inside ``reading``."""
    return parse_object(_text(path, limit=MAX_TEXT))


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; for use inside ``reading``.

    Raises:
        ValueError: if it is not JSON or nested more than ``MAX_DEPTH`` deep.
        RecursionError: if it is nested too deep for the parser.
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
    """As ``parse_json``, but the value must be an object."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {type(value).__name__}")
    return value


def read_yaml(path: Path, *, as_text: bool = False) -> Any:
    """Read a YAML file of at most ``MAX_YAML`` bytes; raises as ``reading``.

    With ``as_text`` all scalars are strings, also ``1`` and ``null``.
    """
    with reading(path, kind="YAML file", remedy="correct it"):
        return parse_yaml(_text(path, limit=MAX_YAML), as_text=as_text)


def parse_yaml(text: str, *, as_text: bool = False) -> Any:
    """Parse YAML by the rules of YAML 1.2 (``no`` is a string); for use inside ``reading``.

    Raises:
        ValueError: if it contains aliases (a few nested ones can fill any memory) or is nested
            more than ``MAX_DEPTH`` deep.
        yaml.YAMLError: if it is not YAML.
    """
    return yaml.load(text, Loader=_TextLoader if as_text else _Loader)


class _Bounded(yaml.parser.Parser, yaml.composer.Composer):
    """Refuses aliases and deep nesting while it builds the tree of nodes."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            name = self.peek_event().anchor  # type: ignore[no-untyped-call]
            raise ValueError(f"aliases such as *{name} are not supported: repeat the value")
        nested = self.check_event(yaml.CollectionStartEvent)
        self._depth += nested
        if self._depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self._depth -= nested
        return node


class _TextLoader(_Bounded, yaml.BaseLoader):
    """Leaves every scalar a string."""


class _Loader(_Bounded, yaml.SafeLoader):
    """Resolves scalars as YAML 1.2; in PyYAML's YAML 1.1 ``no`` is false and 1e-3 a string."""


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
    """Open a Parquet file and read its footer; for use inside ``reading``.

    Raises:
        ValueError: if it declares more rows than it has bytes. A few bytes can encode billions of
            equal rows, but the rows that this package uses differ.
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
        raise ValueError(f"larger than the limit of {limit:,} bytes")
    return content.decode("utf-8-sig")
