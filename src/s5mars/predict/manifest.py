"""The manifest of an output folder records which products are done, failed (and why) or to do.

It is one SQLite file. The write-ahead log makes every record atomic whenever the process dies, and
the lock keeps a second run out. A product is recorded as done after its files are in place, so a
kill between the two costs only that product's work.

It also records which products were in progress when a run died, as one of them may be the cause:
such products come last, one at a time (``suspects``), and a product that was being read at two
deaths has failed.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from s5mars.errors import DamagedFileError, UserError
from s5mars.files import below, disk_full, numbered, printable
from s5mars.files.reading import parse_json, parse_object, reading, require_regular
from s5mars.predict.sources import (
    INDEX,
    MANIFEST,
    TABLE,
    Names,
    Source,
    refuse_overwriting_others,
)
from s5mars.products.files import state_of

FORMAT = 3

DEATHS = 2
"""Number of runs that may die while reading a product before it counts as failed."""

START_OVER = f"remove it, {INDEX}, {TABLE} and the maps to start over, or choose another --out"
"""What to do about a damaged manifest."""

_OF_THE_SYSTEM = {
    sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_PROTOCOL,
}  # fmt: skip

State = Literal["to do", "done", "failed"]

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

_SOURCE = "CAST(path AS BLOB), name"


@dataclass(frozen=True)
class Counts:
    """Number of products in each state."""

    done: int
    failed: int
    to_do: int

    def __str__(self) -> str:
        return f"{self.done} done, {self.failed} failed, {self.to_do} to do"


@dataclass(frozen=True)
class Entry:
    """One product."""

    source: Source
    state: State
    reason: str | None  # one line if failed
    facts: Mapping[str, Any]  # index entry of a done product; else empty


class Manifest:
    """Context manager that locks an output folder while it is open."""

    def __init__(self, out: Path) -> None:
        """Open or create the manifest of an output folder.

        Raises:
            UserError: if another run has it open, or the file is damaged or of another version.
            OSError: if the disk is full.
        """
        self.out = out
        self.path = out / MANIFEST
        out.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            require_regular(self.path)
        with self._errors():
            self._database = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        try:
            self._open()
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    def start(
        self, sources: Iterable[Source], settings: Mapping[str, object], *, resume: bool
    ) -> None:
        """Begin a run and add its products; if that is refused, the manifest is as before.

        Raises:
            UserError: as ``begin``, or if a file that is not of a product of the manifest would be
                overwritten.
        """
        with self._transaction():
            known = {source.name for source in self._sources()}
            self.begin(settings, resume=resume)
            self.add(sources, again=not resume)
            self._record_inputs()
            new = (source for source in self._sources() if source.name not in known)
            refuse_overwriting_others(new, self.out, _kinds(settings))

    def begin(self, settings: Mapping[str, object], *, resume: bool) -> None:
        """Check the settings and mark products that have to be repeated as to do.

        If no product is done, the manifest stores the settings; otherwise they must be the same.
        With ``resume``, failed products are retried, except those that killed runs, and products
        whose files are missing or whose image has changed are repeated.

        Args:
            resume: continue an unfinished run; without it nothing may be left to do.

        Raises:
            UserError: if settings differ (the message names them) or a run is unfinished.
        """
        counts = self.counts()
        given = {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}
        with self._transaction():
            if counts.done:
                if differences := self._differences(given):
                    raise UserError(
                        f"{self.out} was started with other settings ({differences}); use the "
                        "same settings, or choose another --out"
                    )
                if counts.to_do and not resume:
                    raise UserError(
                        f"{self.out} contains an unfinished run ({counts}); continue it with "
                        "--resume, or choose another --out"
                    )
            elif not resume or self._differences(given):
                self._database.execute("DELETE FROM products")
                self._database.execute("DELETE FROM settings")
                self._database.executemany("INSERT INTO settings VALUES (?, ?)", given.items())
            if resume:
                failed = "SELECT name FROM products WHERE state = 'failed' AND deaths < ?"
                self._reset([name for (name,) in self._rows(failed, (DEATHS,))])
                self._reset(self._with_missing_files(settings))
                self._reset(self._changed())
            self._suspect()

    def add(self, sources: Iterable[Source], *, again: bool) -> None:
        """Add products under unique names.

        Args:
            again: mark products that are already in the manifest as to do.
        """
        known = {str(source.path): source.name for source in self._sources()}
        names = Names(known.values())
        with self._transaction():
            for source in sources:
                path = str(source.path)
                if path in known:
                    if again:
                        self._reset([known[path]])
                    continue
                known[path] = name = names.free(source).name
                # As bytes, because SQLite's text is UTF-8, and a path need not be.
                self._database.execute(
                    "INSERT INTO products (name, path) VALUES (?, CAST(? AS TEXT))",
                    (name, os.fsencode(path)),
                )

    def begin_reading(self, name: str) -> None:
        """A product is about to be read."""
        self._update("hand = 'reading'", name)

    def end_reading(self, name: str) -> None:
        """A product was read, or reading failed; it stays in progress until it is recorded."""
        self._update("hand = 'begun', deaths = 0", name)

    def end(self) -> None:
        """The run ends regularly: none of its products is suspect."""
        with self._errors():
            self._database.execute(
                "UPDATE products SET hand = NULL WHERE hand IN ('reading', 'begun')"
            )

    def suspects(self) -> list[Source]:
        """Products to do that were in progress when a run died, sorted by name."""
        return list(
            self._sources(
                "WHERE state = 'to do' AND (hand = 'suspect' OR deaths > 0) ORDER BY name"
            )
        )

    def record_done(self, name: str, facts: Mapping[str, Any]) -> None:
        """Record that the files of a product are in place."""
        self._record(name, "done", None, json.dumps(facts))

    def record_failed(self, name: str, reason: str) -> None:
        """Record that a product cannot be predicted."""
        self._record(name, "failed", printable(reason), None)

    def counts(self) -> Counts:
        """Number of products in each state."""
        found = dict(self._rows("SELECT state, count(*) FROM products GROUP BY state"))
        return Counts(found.get("done", 0), found.get("failed", 0), found.get("to do", 0))

    def without_image(self, sources: Iterable[Source]) -> list[Source]:
        """Done products whose image is gone; the sources were found and are not checked again."""
        found = {source.path for source in sources}
        done = self._sources("WHERE state = 'done' ORDER BY name")
        return [s for s in done if s.path not in found and not os.path.lexists(s.path)]

    def entries(self, state: State | None = None) -> Iterator[Entry]:
        """Products sorted by name, all or those in one state."""
        rows = self._rows(
            f"SELECT {_SOURCE}, state, reason, facts FROM products "
            "WHERE ? IS NULL OR state = ? ORDER BY name",
            (state, state),
        )
        for path, name, found, reason, facts in rows:
            yield Entry(self._source(path, name), found, reason, self._facts(facts))

    def _sources(self, condition: str = "") -> Iterator[Source]:
        for path, name in self._rows(f"SELECT {_SOURCE} FROM products {condition}"):
            yield self._source(path, name)

    def _source(self, path: bytes, name: object) -> Source:
        below(self.out, name, source=self.path)
        if b"\0" in path:
            raise self._damaged(f"the path of {name} contains a zero byte")
        return Source(Path(os.fsdecode(path)), str(name))

    def _facts(self, text: object) -> Mapping[str, Any]:
        with reading(self.path, kind="manifest", remedy=START_OVER):
            return parse_object(str(text)) if text else {}

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> Iterator[tuple[Any, ...]]:
        with self._errors():
            # Not the cursor itself, which a caller could close after the database.
            yield from map(tuple, self._database.execute(query, values))

    def _open(self) -> None:
        with self._errors():
            # The first access takes the lock; the end of the process releases it.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            # A power cut may lose the last records; their products are then repeated.
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute("BEGIN IMMEDIATE")
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version == 0:  # a new file
                for statement in _TABLES.split(";"):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA user_version = {FORMAT}")
            elif version == 2:
                self._database.execute(_OF_FORMAT_2)
                self._database.execute(f"PRAGMA user_version = {FORMAT}")
            elif version != FORMAT:
                raise UserError(
                    f"{self.path} has manifest format {version}, this version writes {FORMAT}; "
                    "choose another --out"
                )
            self._database.execute("COMMIT")

    def _record(self, name: str, state: State, reason: str | None, facts: str | None) -> None:
        with self._errors():
            self._database.execute(
                "UPDATE products SET state = ?, reason = ?, facts = ?, hand = NULL, deaths = 0 "
                "WHERE name = ?",
                (state, reason, facts, name),
            )

    def _update(self, what: str, name: str) -> None:
        with self._errors():
            self._database.execute(f"UPDATE products SET {what} WHERE name = ?", (name,))

    def _reset(self, names: Iterable[str]) -> None:
        self._database.executemany(
            "UPDATE products SET state = 'to do', reason = NULL, facts = NULL, hand = NULL, "
            "deaths = 0 WHERE name = ?",
            ((name,) for name in names),
        )

    def _suspect(self) -> None:
        """Mark products that are still in progress, so that a run died with them, as suspect."""
        self._database.execute("UPDATE products SET deaths = deaths + 1 WHERE hand = 'reading'")
        self._database.execute(
            "UPDATE products SET hand = 'suspect' WHERE hand IN ('reading', 'begun')"
        )
        self._database.execute(
            "UPDATE products SET state = 'failed', reason = path || ? "
            "WHERE state = 'to do' AND deaths >= ?",
            (
                f": the run died {DEATHS} times while reading this file; --resume skips it, and a "
                "run without --resume reads it again",
                DEATHS,
            ),
        )

    def _with_missing_files(self, settings: Mapping[str, object]) -> list[str]:
        kinds = _kinds(settings)
        return [
            entry.source.name
            for entry in self.entries("done")
            if not all((self.out / f).is_file() for f in entry.source.outputs(kinds).values())
        ]

    def _changed(self) -> list[str]:
        """Done products whose image is there and is not the one that was read."""
        rows = self._rows(
            f"SELECT {_SOURCE}, input FROM products WHERE state = 'done' AND input IS NOT NULL"
        )
        changed = []
        for path, name, read in rows:
            now = state_of(self._source(path, name).path)
            if now is not None and now != read:
                changed.append(name)
        return changed

    def _record_inputs(self) -> None:
        """Record the images of the products to do as they are now.

        The process that writes does this before any is read: it compares them when it resumes, and
        workers on other machines may see other times. An image that changes meanwhile is repeated.
        """
        states = [
            (state_of(source.path), source.name)
            for source in self._sources("WHERE state = 'to do'")
        ]
        self._database.executemany("UPDATE products SET input = ? WHERE name = ?", states)

    def _differences(self, given: Mapping[str, str]) -> str:
        kept = dict(self._rows("SELECT name, value FROM settings"))
        return "; ".join(
            f"{name}: {_short(kept.get(name))} there, {_short(given.get(name))} now"
            for name in {**kept, **given}
            if kept.get(name) != given.get(name)
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._database.in_transaction:  # the outer one commits
            yield
            return
        with self._errors():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

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
                    f"another run is writing to {self.out}; wait for it, or choose another --out"
                ) from None
            if primary == sqlite3.SQLITE_FULL:
                raise disk_full(self.path) from error
            if primary in _OF_THE_SYSTEM:
                raise numbered(errno.EIO, f"{self.path}: {error}") from error
            raise self._damaged(str(error)) from error

    def _damaged(self, reason: str) -> DamagedFileError:
        return DamagedFileError(f"{self.path}: damaged manifest ({reason}): {START_OVER}")


def _kinds(settings: Mapping[str, object]) -> list[str]:
    write = settings.get("write")
    return [str(kind) for kind in write] if isinstance(write, list) else []


def _short(value: str | None) -> str:
    if value is None:
        return "missing"
    try:
        read = parse_json(value)
    except (ValueError, TypeError, RecursionError):
        read = None
    plain = isinstance(read, list) and all(isinstance(item, str) for item in read)
    said = ",".join(read) if plain else read if isinstance(read, str) else str(value)
    return said if len(said) <= 40 else f"{said[:37]}..."
