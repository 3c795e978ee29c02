"""The manifest of an output folder records which products are done, failed (and why) or to do.

It is one SQLite file (``predict.database``), whose records are atomic whenever the process dies. A
product is recorded as done after its files are in place, so a kill between the two costs only that
product's work.

It also records which products were in progress when a run died, as one of them may be the cause:
such products come last, one at a time (``suspects``), and a product that was being read at two
deaths has failed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from s5mars.errors import UserError
from s5mars.files import below, printable
from s5mars.files.reading import parse_json, parse_object, reading
from s5mars.predict.database import START_OVER, Database
from s5mars.predict.sources import MANIFEST, Names, Source, refuse_overwriting_others
from s5mars.products.files import state_of

DEATHS = 2
"""Number of runs that may die while reading a product before it counts as failed."""

State = Literal["to do", "done", "failed"]

_SOURCE = "CAST(path AS BLOB), name"


@dataclass(frozen=True)
class Counts:
    """Number of products in each state."""

    done: int
    failed: int
    to_do: int

    def __str__(self) -> str:
        return f"{self.done:,} done, {self.failed:,} failed, {self.to_do:,} to do"


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
        self._database = Database(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    def start(
        self, sources: Iterable[Source], settings: Mapping[str, object], *, resume: bool
    ) -> None:
        """Begin a run and add its products; if that is refused, the folder is as before.

        With ``resume``, products whose image has changed are repeated, too. The maps of a changed
        image are removed: if it cannot be read now, they would be taken for maps of what it is now.

        Raises:
            UserError: as ``begin``, or if a file that is not of a product of the manifest would be
                overwritten.
        """
        with self._database.transaction():
            known = {source.name for source in self._sources()}
            changed = set(self._changed())
            self.begin(settings, resume=resume)
            if resume:
                self._reset(changed)
            self.add(sources, again=not resume)
            self._record_inputs()
            new = (source for source in self._sources() if source.name not in known)
            refuse_overwriting_others(new, self.out, _kinds(settings))
            for source in self._sources("WHERE state = 'to do'"):
                if source.name in changed:
                    for file in source.outputs(_kinds(settings)).values():
                        (self.out / file).unlink(missing_ok=True)

    def begin(self, settings: Mapping[str, object], *, resume: bool) -> None:
        """Check the settings and mark products that have to be repeated as to do.

        If no product is done, the manifest stores the settings; otherwise they must be the same.
        With ``resume``, failed products are retried, except those that killed runs, and products
        whose files are missing are repeated.

        Args:
            resume: continue an unfinished run; without it nothing may be left to do.

        Raises:
            UserError: if settings differ (the message names them) or a run is unfinished.
        """
        counts = self.counts()
        given = {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}
        with self._database.transaction():
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
                self._database.execute_many("INSERT INTO settings VALUES (?, ?)", given.items())
            if resume:
                failed = "SELECT name FROM products WHERE state = 'failed' AND deaths < ?"
                self._reset([name for (name,) in self._database.rows(failed, (DEATHS,))])
                self._reset(self._with_missing_files(settings))
            self._suspect()

    def add(self, sources: Iterable[Source], *, again: bool) -> None:
        """Add products under unique names.

        Args:
            again: mark products that are already in the manifest as to do.
        """
        known = {str(source.path): source.name for source in self._sources()}
        names = Names(known.values())
        with self._database.transaction():
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
        self._database.execute("UPDATE products SET hand = NULL WHERE hand IN ('reading', 'begun')")

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
        found = dict(self._database.rows("SELECT state, count(*) FROM products GROUP BY state"))
        return Counts(found.get("done", 0), found.get("failed", 0), found.get("to do", 0))

    def without_image(self, sources: Iterable[Source]) -> list[Source]:
        """Done products whose image is gone; the sources were found and are not checked again."""
        found = {source.path for source in sources}
        done = self._sources("WHERE state = 'done' ORDER BY name")
        return [s for s in done if s.path not in found and not os.path.lexists(s.path)]

    def entries(self, state: State | None = None) -> Iterator[Entry]:
        """Products sorted by name, all or those in one state."""
        rows = self._database.rows(
            f"SELECT {_SOURCE}, state, reason, facts FROM products "
            "WHERE ? IS NULL OR state = ? ORDER BY name",
            (state, state),
        )
        for path, name, found, reason, facts in rows:
            yield Entry(self._source(path, name), found, reason, self._facts(facts))

    def _sources(self, condition: str = "") -> Iterator[Source]:
        for path, name in self._database.rows(f"SELECT {_SOURCE} FROM products {condition}"):
            yield self._source(path, name)

    def _source(self, path: bytes, name: object) -> Source:
        below(self.out, name, source=self.path)
        if b"\0" in path:
            raise self._database.damaged(f"the path of {name} contains a zero byte")
        return Source(Path(os.fsdecode(path)), str(name))

    def _facts(self, text: object) -> Mapping[str, Any]:
        with reading(self.path, kind="manifest", remedy=START_OVER):
            return parse_object(str(text)) if text else {}

    def _record(self, name: str, state: State, reason: str | None, facts: str | None) -> None:
        self._database.execute(
            "UPDATE products SET state = ?, reason = ?, facts = ?, hand = NULL, deaths = 0 "
            "WHERE name = ?",
            (state, reason, facts, name),
        )

    def _update(self, what: str, name: str) -> None:
        self._database.execute(f"UPDATE products SET {what} WHERE name = ?", (name,))

    def _reset(self, names: Iterable[str]) -> None:
        self._database.execute_many(
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
        # Not in SQL, because a path need not be UTF-8, as the text of a reason must.
        deadly = self._sources(f"WHERE state = 'to do' AND deaths >= {DEATHS}")
        reasons = [
            (
                f"{printable(str(source.path))}: the run died {DEATHS} times while reading this "
                "file; --resume skips it, and a run without --resume reads it again",
                source.name,
            )
            for source in deadly
        ]
        self._database.execute_many(
            "UPDATE products SET state = 'failed', reason = ? WHERE name = ?", reasons
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
        rows = self._database.rows(
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
        self._database.execute_many("UPDATE products SET input = ? WHERE name = ?", states)

    def _differences(self, given: Mapping[str, str]) -> str:
        kept = dict(self._database.rows("SELECT name, value FROM settings"))
        return "; ".join(
            f"{name}: {_short(kept.get(name))} there, {_short(given.get(name))} now"
            for name in {**kept, **given}
            if kept.get(name) != given.get(name)
        )


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
