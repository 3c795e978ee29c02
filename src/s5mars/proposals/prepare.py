"""The object store of a run: given, imported, or made once with graph segmentation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from s5mars.proposals.build import build_store
from s5mars.proposals.coco import import_json
from s5mars.proposals.store import ObjectStore
from s5mars.types import Sample

logger = logging.getLogger("s5mars")


def check_given(given: Path) -> None:
    """Raise FileNotFoundError if there is nothing at the path of the object proposals."""
    if not given.exists():
        raise FileNotFoundError(
            f"no object proposals at {given}: leave out --objects to have them made"
        )


def object_store(given: Path | None, samples: Sequence[Sample], *, cache: Path) -> ObjectStore:
    """Open, import or build the store that holds the objects of these samples.

    Args:
        given: a Parquet file, a folder of Parquet shards, a folder of per-image JSON files as the
            authors keep them, or None: graph segmentation, which needs no weights.
        samples: the images that objects are cut from.
        cache: where an imported or a built store is kept; found again when a run is resumed.

    Raises:
        FileNotFoundError: if ``given`` does not exist.
        ValueError: if it holds no objects of any of these images.
    """
    if given is None:
        build_store(samples, cache)
        return ObjectStore(cache)
    check_given(given)
    if given.is_dir() and not any(given.glob("*.parquet")):
        imported = cache.with_suffix(".parquet")
        if not imported.is_file():
            import_json(given, imported)
        given = imported
    store = ObjectStore(given)
    missing = store.missing(sample.name for sample in samples)
    if len(missing) == len(samples):
        store.check(missing)
    if missing:
        logger.warning(
            "%s has no entry for %d of %d labelled images (such as %s): rectangles instead",
            given, len(missing), len(samples), missing[0],
        )  # fmt: skip
    return store
