"""``s5mars fetch``: downloads a public data set and converts it to a folder.

Shards are downloaded one after another to ``OUT/.shards`` and converted in the same order. A broken
download resumes within the file, and a run that was killed resumes with its last shard. At the end
the shards are removed, and ``OUT/fetched.json`` describes the data.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from s5mars.data.hub.convert import convert, names_of, rows_of
from s5mars.data.hub.shards import HubStore, Listing, LocalStore, Shard, Store
from s5mars.data.hub.sources import SOURCES, Source
from s5mars.errors import UserError, as_typed, require_choice
from s5mars.files import write_json
from s5mars.files.reading import read_object

RECORD = "fetched.json"
SHARDS = ".shards"


def fetch(
    name: str,
    *,
    out: str | Path,
    local: str | Path | None = None,
    dry_run: bool = False,
    endpoint: str | None = None,
) -> Path:
    """Fetch a public data set; print its source, size and licence first.

    Args:
        name: Key of ``SOURCES``.
        out: Output folder; an interrupted fetch in it is resumed.
        local: Folder with the files of the hub, downloaded by other means; the hub by default.
        dry_run: Stop after printing.
        endpoint: URL of the hub; the setting of huggingface_hub by default.

    Returns:
        ``out``, which ``open_dataset`` reads.

    Raises:
        ConnectionError: if the hub cannot be reached; the message names another source.
        MissingFileError: if ``local`` does not exist.
        UserError: if the name is unknown, ``out`` contains something else, or a shard is damaged.
        OSError: if writing fails; the message says so if the disk is full.
    """
    require_choice(name, SOURCES, name="the data set", suggest=True)
    source, out = SOURCES[name], Path(out)
    recorded = _begun(out, name)
    if recorded is not None and recorded.get("complete"):
        print(f"{out}: complete; next: s5mars stats {as_typed(out)} --out stats")
        return out
    store: Store
    if local is None:
        # A resumed download keeps its revision, even if the hub has a newer one.
        revision = str(recorded["revision"]) if recorded and recorded.get("revision") else None
        hub = HubStore(source, endpoint, revision)
        listing = hub.listing()
        store = replace(hub, revision=listing.revision or None)
    else:
        store = LocalStore(source, Path(local))
        listing = store.listing()
    print(listing)
    print(f"published at {source.published}")
    if dry_run:
        return out
    write_json(out / RECORD, _record(name, source, listing, complete=False))
    counts, unnamed = _all_splits(source, store, listing, out)
    write_json(out / RECORD, _record(name, source, listing, complete=True) | {"files": counts})
    shutil.rmtree(out / SHARDS, ignore_errors=True)
    print(f"{out}: {', '.join(f'{count:,} {column}' for column, count in counts.items())}")
    if unnamed:
        print(
            f"the images of {', '.join(unnamed)} have no names of their own and are numbered, so a "
            "validation split that is drawn from them cannot keep neighbouring frames together"
        )
    return out


def _all_splits(
    source: Source, store: Store, listing: Listing, out: Path
) -> tuple[dict[str, int], list[str]]:
    """Column → number of files, and the splits whose images have no names."""
    files: dict[str, set[str]] = {}
    taken: set[str] = set()
    unnamed: list[str] = []
    with tqdm(total=2 * len(listing.shards), unit="shard", desc="fetch", disable=None) as bar:
        for split in source.splits:
            shards = [shard for shard in listing.shards if shard.split == split]
            paths = []
            for shard in shards:
                paths.append(store.local_file(shard, out / SHARDS))
                bar.update()
            names = names_of(split, paths, source.columns[0], taken=taken)
            if not names.from_paths:
                unnamed.append(split)
            if not source.shared_images:
                taken.update(names.rows)
            first = 0
            for shard, path in zip(shards, paths, strict=True):
                rows = rows_of(path)
                rows_here = names.rows[first : first + rows]
                for column, written in _one_shard(source, shard, path, rows_here, out).items():
                    files.setdefault(column, set()).update(written)
                first += rows
                bar.update()
    return {column: len(paths) for column, paths in files.items()}, unnamed


def _one_shard(
    source: Source, shard: Shard, path: Path, names: Sequence[str], out: Path
) -> dict[str, list[str]]:
    mark = out / SHARDS / "done" / f"{shard.split}-{shard.number}-files.json"
    try:
        return {column: list(paths) for column, paths in read_object(mark).items()}
    except (OSError, UserError):
        files = convert(path, source, split=shard.split, names=names, out=out)
        write_json(mark, files)
        return files


def _begun(out: Path, name: str) -> Mapping[str, object] | None:
    """Read the record of an earlier fetch; None if the folder is new or empty."""
    if not out.exists() or not any(out.iterdir()):
        return None
    try:
        recorded = read_object(out / RECORD)
        begun = recorded["data"]
    except (OSError, UserError, KeyError):
        raise UserError(
            f"{out} is not empty and not from an earlier fetch: choose another --out"
        ) from None
    if begun != name:
        raise UserError(f"{out} contains {begun!r}, not {name!r}: choose another --out")
    return recorded


def _record(name: str, source: Source, listing: Listing, *, complete: bool) -> dict[str, object]:
    return {
        "data": name,
        "source": listing.where,
        "revision": listing.revision,
        "licence": listing.licence,
        "published": source.published,
        "bytes": listing.size,
        "complete": complete,
    }
