"""Files that are either whole or absent: written beside their place, then renamed."""

from __future__ import annotations

import errno
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from s5mars.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes ``path`` when the block ends well.

    Raises:
        OSError: with a clear line when the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        if is_disk_full(error):
            raise disk_full(path) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def below(folder: Path, name: object, *, source: Path | str) -> Path:
    """The place of a name below a folder; every name that a file brings along is joined here.

    Raises:
        UserError: naming ``source``, the file that it came from, if the name leads elsewhere.
    """
    path = PurePosixPath(name if isinstance(name, str) else "/")
    device = "\0" in str(name) or PureWindowsPath(str(name)).drive
    if device or path.is_absolute() or not path.parts or ".." in path.parts:
        raise UserError(
            f"{source}: {name!r} is no name of a file below its folder: the file is damaged or "
            "made to do harm: do not use it"
        )
    return folder / str(name)


def is_disk_full(error: BaseException) -> bool:
    """Whether this is what a full disk looks like; not every library says so by errno."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return os.strerror(errno.ENOSPC) in str(error)


def disk_full(path: Path) -> OSError:
    """What to raise when there is no space left to write ``path``."""
    return OSError(
        errno.ENOSPC,
        f"the disk is full; nothing was written to {path}: free some space, or write elsewhere",
    )


def printable(name: str) -> str:
    """A file's name as text that every format takes; of bytes that are not UTF-8 ``%E9``."""
    # A locale without UTF-8 makes such bytes of every letter beyond ASCII.
    decoded = name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", decoded)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, in UTF-8; file names that are not become ``\\udce9``, as in JSON."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: object) -> None:
    """Write JSON whole, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_figure(path: Path, figure: Figure, *, dots_per_inch: int = 150) -> None:
    """Write a figure whole, as PNG."""
    # In memory first, because Pillow does not report a full disk as such.
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", dpi=dots_per_inch)
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())
