"""The object store of a run: given, imported, or made once with graph segmentation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from s5mars.errors import MissingFileError
from s5mars.proposals.build import build_store
from s5mars.proposals.coco import import_json
from s5mars.proposals.draw import Coverage, ObjectFilter, coverage
from s5mars.proposals.store import ObjectStore
from s5mars.types import Sample

logger = logging.getLogger("s5mars")


def check_given(given: Path) -> None:
    """Raise FileNotFoundError if there is nothing at the path of the object proposals."""
    if not given.exists():
        raise MissingFileError(
            f"no object proposals at {given}: leave out --objects to have them made"
        )


def check_store(given: Path, samples: Sequence[Sample]) -> None:
    """Raise as ``object_store`` does, before anything is written; JSON is read where it is used."""
    if not _is_json(given):
        _opened(given, samples)


def object_store(
    given: Path | None, samples: Sequence[Sample], *, cache: Path
) -> tuple[ObjectStore, Coverage]:
    """Open, import or build the store that holds the objects of these samples.

    With it, how many of them have a mask to draw; the others are warned of.

    Args:
        given: a Parquet file, a folder of Parquet shards, a folder of per-image JSON files as the
            authors keep them, or None: graph segmentation, which needs no weights.
        samples: the images that objects are cut from.
        cache: where an imported or a built store is kept; found again when a run is resumed.

    Raises:
        MissingFileError: if ``given`` does not exist.
        UserError: if it knows none of these images, or its masks are of another size.
    """
    if given is None:
        build_store(samples, cache)
        given = cache
    check_given(given)
    if _is_json(given):
        imported = cache.with_suffix(".parquet")
        if not imported.is_file():
            import_json(given, imported)
        given = imported
    store, found = _opened(given, samples)
    if found.without:
        logger.warning("%s: %s", given, found.sentence)
    return store, found


def _is_json(given: Path) -> bool:
    return given.is_dir() and not any(given.glob("*.parquet"))


def _opened(given: Path, samples: Sequence[Sample]) -> tuple[ObjectStore, Coverage]:
    store = ObjectStore(given)
    names = [sample.name for sample in samples]
    if len(store.missing(names)) == len(names):
        store.check(names)
    return store, coverage(store, samples, filter=ObjectFilter())
