"""The SQLite file of a manifest.

The write-ahead log makes every record atomic whenever the process dies, and the lock keeps a second
run out.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from s5mars.errors import DamagedFileError, UserError
from s5mars.files import disk_full, numbered
from s5mars.files.reading import require_regular
from s5mars.predict.sources import INDEX, TABLE

FORMAT = 3

START_OVER = f"remove it, {INDEX}, {TABLE} and the maps to start over, or choose another --out"
"""What to do about a damaged manifest."""

_OF_THE_SYSTEM = {
    sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_PROTOCOL,
}  # fmt: skip

_TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE products (
    name TEXT PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL DEFAULT 'to do' CHECK (state IN ('to do', 'done', 'failed')),
    reason TEXT,
    facts TEXT,
    hand TEXT,
    deaths INTEGER NOT NULL DEFAULT 0,
    input TEXT
) WITHOUT ROWID;
"""
_OF_FORMAT_2 = "ALTER TABLE products ADD COLUMN input TEXT"
# hand: reading; begun (read, not yet recorded); suspect (one of these when a run died).
# deaths: number of runs that died while reading it.
# input: size and time of its files before they were read (``state_of``); null: not known.


class Database:
    """A file that one process has open."""

    def __init__(self, path: Path) -> None:
        """Open or create it.

        Raises:
            UserError: if another run has it open, or the file is damaged or of another version.
            OSError: if the disk is full.
        """
        self.path = path
        if path.exists():
            require_regular(path)
        with self._errors():
            self._connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process open it."""
        self._connection.close()

    def execute(self, statement: str, values: tuple[object, ...] = ()) -> None:
        """Execute a statement whose rows do not matter."""
        with self._errors():
            self._connection.execute(statement, values)

    def execute_many(self, statement: str, values: Iterable[tuple[object, ...]]) -> None:
        """Execute a statement with each of several sets of values."""
        with self._errors():
            self._connection.executemany(statement, values)

    def rows(self, query: str, values: tuple[object, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query."""
        with self._errors():
            # Not the cursor itself, which a caller could close after the database.
            yield from map(tuple, self._connection.execute(query, values))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep all changes in the block, or none; blocks within others belong to the outer one."""
        if self._connection.in_transaction:  # the outer one commits
            yield
            return
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def damaged(self, reason: str) -> DamagedFileError:
        """An error that says why the file is damaged and what to do."""
        return DamagedFileError(f"{self.path}: damaged manifest ({reason}): {START_OVER}")

    def _open(self) -> None:
        with self._errors():
            # The first access takes the lock; the end of the process releases it.
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            # A power cut may lose the last records; their products are then repeated.
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute("BEGIN IMMEDIATE")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version == 0:  # a new file
                for statement in _TABLES.split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {FORMAT}")
            elif version == 2:
                self._connection.execute(_OF_FORMAT_2)
                self._connection.execute(f"PRAGMA user_version = {FORMAT}")
            elif version != FORMAT:
                raise UserError(
                    f"{self.path} has manifest format {version}, this version writes {FORMAT}; "
                    "choose another --out"
                )
            self._connection.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", None)
            primary = code & 0xFF if isinstance(code, int) else None
            if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise UserError(
                    f"another run is writing to {self.path.parent}; wait for it, or choose "
                    "another --out"
                ) from None
            if primary == sqlite3.SQLITE_FULL:
                raise disk_full(self.path) from error
            if primary in _OF_THE_SYSTEM:
                raise numbered(errno.EIO, f"{self.path}: {error}") from error
            raise self.damaged(str(error)) from error
