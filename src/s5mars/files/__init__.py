"""Safe paths, digests, and atomic writing: under a temporary name in the folder, then renamed."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from s5mars.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image


_REMEDIES = (
    FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError,
    ConnectionError, TimeoutError,
)  # fmt: skip
# By name, because other systems lack some.
_REMEDIABLE = {
    getattr(errno, name, None)
    for name in (
        "EBUSY", "ECONNRESET", "EFBIG", "EHOSTUNREACH", "EIO", "ELOOP", "EMFILE", "ENAMETOOLONG",
        "ENETUNREACH", "ENFILE", "ENOMEM", "ENOTEMPTY", "ENOTSUP", "EROFS", "ESTALE", "ETXTBSY",
    )
} - {None}  # fmt: skip


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to ``path`` if the block raises no exception.

    Raises:
        OSError: if writing fails; the message says so if the disk is full.
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


def put_folder(new: Path, out: Path, *, last: str) -> None:
    """Move a complete folder to a place where there is none, or an empty one.

    Args:
        last: name of the file without which no command takes the folder for a complete one.
    """
    if not out.exists():
        new.rename(out)
        return
    # The user may work in an existing folder, and a link or a mounted volume cannot be replaced.
    for path in sorted(new.iterdir(), key=lambda path: path.name == last):
        shutil.move(path, out / path.name)


def given_path(path: str | os.PathLike[str]) -> Path:
    """A path as the user gave it.

    Raises:
        UserError: if it is empty, which would be the current folder, or contains a zero byte.
    """
    text = os.fspath(path)
    if not text:
        raise UserError("the path is empty: give one, or . for the current folder")
    if "\0" in text:
        raise UserError(f"the path {text!r} contains a zero byte: correct it")
    return Path(path)


def below(folder: Path, name: object, *, source: Path | str) -> Path:
    """Join a folder and a name that was read from the file ``source``.

    Raises:
        UserError: if the path would be outside the folder.
    """
    path = PurePosixPath(name if isinstance(name, str) else "/")
    device = "\0" in str(name) or PureWindowsPath(str(name)).drive
    if device or path.is_absolute() or not path.parts or ".." in path.parts:
        raise UserError(
            f"{source}: {name!r} is not a file name inside its folder: the file is damaged or "
            "malicious: do not use it"
        )
    return folder / str(name)


def visible(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that match a pattern, sorted, without hidden ones.

    macOS writes ``._train.txt`` beside ``train.txt`` on drives of other systems.
    """
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means a full disk; some libraries do not set errno."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if os.strerror(errno.ENOSPC) in str(error):
        return True
    # torch closes its archive after the error of the file, and raises another one.
    return error.__context__ is not None and is_disk_full(error.__context__)


def has_remedy(error: OSError) -> bool:
    """Whether the user can remedy an OSError, such as a missing file, permission or disk space.

    Others, such as the use of a closed file, are bugs.
    """
    return isinstance(error, _REMEDIES) or error.errno in _REMEDIABLE or is_disk_full(error)


def numbered(number: int | None, message: str) -> OSError:
    """An OSError with an errno whose text is only the message."""
    error = OSError(message)
    error.errno = number
    return error


def disk_full(path: Path) -> OSError:
    """The error for a disk that has no space left to write ``path``."""
    return OSError(
        errno.ENOSPC,
        f"the disk is full and {path} was not written: free some space or choose another disk",
    )


def printable(name: str) -> str:
    """Replace bytes of a file name that are not UTF-8, such as by ``%E9``."""
    # A locale without UTF-8 decodes every letter beyond ASCII to such bytes.
    decoded = name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", decoded)


def file_digest(path: Path) -> str:
    """SHA-256 of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; lone surrogates are escaped as in JSON (``\\udce9``)."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, value: object) -> None:
    """Write indented JSON atomically, with the keys in their order."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def encoded(save: Callable[[io.BytesIO], object]) -> bytes:
    """The bytes that ``save`` writes.

    Files are encoded in memory first because Pillow and torch do not report a full disk as such.
    """
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def encoded_picture(picture: Image.Image, ending: str, **options: object) -> bytes:
    """The bytes of an image file with this ending, such as ``".png"``, in lower case."""
    from PIL import Image

    kind = Image.registered_extensions()[ending]
    return encoded(lambda buffer: picture.save(buffer, kind, **options))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_figure(path: Path, figure: Figure, *, dots_per_inch: int = 150) -> None:
    """Write a figure as PNG atomically."""
    write_bytes(path, encoded(lambda file: figure.savefig(file, format="png", dpi=dots_per_inch)))
