"""Opens, imports or builds the object store of a run."""

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
    """Raise a MissingFileError if the path of the object proposals does not exist."""
    if not given.exists():
        raise MissingFileError(
            f"{given} does not exist: leave out --objects to create object masks automatically"
        )


def check_store(given: Path, samples: Sequence[Sample]) -> None:
    """Raise as ``object_store``, before anything is written; JSON is not checked."""
    if not _is_json(given):
        _opened(given, samples)


def object_store(
    given: Path | None, samples: Sequence[Sample], *, cache: Path
) -> tuple[ObjectStore, Coverage]:
    """Open, import or build the store with the objects of these samples.

    Also returns how many samples have a mask to draw, and logs a warning about the others.

    Args:
        given: Parquet file, folder of Parquet shards, folder of JSON files as the authors
            distribute them, or None for graph segmentation, which needs no weights.
        cache: Path for an imported or built store, which later runs reuse.

    Raises:
        MissingFileError: if ``given`` does not exist.
        UserError: if it has none of these images, or its masks have another size.
    """
    if given is None:
        build_store(samples, cache, wait=True)  # another run on the same images may be making it
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
    return store, coverage(store, samples, filter=ObjectFilter())
