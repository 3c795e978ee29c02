"""Locks an output folder, so that only one process writes to it at a time."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from s5mars.errors import UserError

logger = logging.getLogger("s5mars")

LOCK = ".lock"
"""Name of the lock file; it is removed when the run ends. A stale file has no effect."""

_LOOK_SECONDS = 0.5  # between two attempts of a process that waits
_TRIES, _TRY_SECONDS = 5, 0.02  # of a process that does not wait
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_held: set[int] = set()


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a folder, which is created if it does not exist.

    With ``wait``, a folder that another process holds is awaited, after a warning that names it.

    The operating system releases the lock of a process that dies. On file systems without locks
    the folder is used without one.

    Raises:
        UserError: if another process holds the lock and ``wait`` is false; the message names it.
    """
    made = not folder.exists()
    path = folder / LOCK
    held = _acquire(path, wait=wait)
    _held.add(held)
    try:
        yield
    finally:
        _held.discard(held)
        path.unlink(missing_ok=True)
        os.close(held)
        if made:
            with suppress(OSError):
                folder.rmdir()  # succeeds only if nothing was written


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of a folder; nothing is written, and others may ask, too."""
    try:
        file = os.open(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        return False
    finally:
        os.close(file)
    return False


def is_empty(folder: Path) -> bool:
    """Whether a folder is empty apart from a lock file."""
    return all(path.name == LOCK for path in folder.iterdir())


def _acquire(path: Path, *, wait: bool) -> int:
    warned, tries = False, 0
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # its last holder has just removed the folder
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 500).decode(errors="replace") or "another process"
            os.close(file)
            tries += 1
            if not wait and tries < _TRIES:
                time.sleep(_TRY_SECONDS)  # ``is_locked`` of another process holds it for a moment
                continue
            if not wait:
                raise UserError(
                    f"{path.parent} is in use by {holder}: wait until it ends, or choose another "
                    "folder"
                ) from None
            if not warned:
                logger.warning(
                    "%s is in use by %s; this run waits until it ends", path.parent, holder
                )
                warned = True
            time.sleep(_LOOK_SECONDS)
            continue
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                os.close(file)
                raise
        # Another process may have removed the file between the two calls.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                os.ftruncate(file, 0)
                with suppress(OSError):  # on a full disk the lock still works
                    os.write(file, _this_process().encode(errors="replace")[:500])
                return file
        os.close(file)


def _this_process() -> str:
    command = shlex.join(["s5mars", *sys.argv[1:]])
    said = command if len(command) <= 200 else f"{command[:197]}..."
    return f"process {os.getpid()} on {socket.gethostname()} ({' '.join(said.split())})"


def _close_in_child() -> None:
    """Children that are forked, such as loader processes, must not keep the lock of a dead run."""
    for file in _held:
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
