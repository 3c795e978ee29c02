"""Opens, imports or builds the object store of a run."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from s5mars.errors import MissingFileError, UserError
from s5mars.files import replacing, visible
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


@contextmanager
def checked_objects(
    given: Path | None, samples: Sequence[Sample], *, imports: bool = True
) -> Iterator[Callable[[Path], None]]:
    """Check that the given store, if any, has the objects of these samples.

    JSON is imported to a temporary file. Yields a function that moves it to where ``object_store``
    looks for it with a ``cache``, and that may be called once.

    Args:
        given: as for ``object_store``.
        imports: whether JSON is imported and checked; only one process has to.

    Raises:
        MissingFileError, UserError: as ``object_store``.
    """
    if given is not None and not _is_json(given):
        check_given(given)
        _opened(given, samples)
    if given is None or not (imports and _is_json(given)):
        yield lambda cache: None
        return
    with TemporaryDirectory(prefix="s5mars-") as folder:
        made = Path(folder) / "objects.parquet"
        _import(given, made, samples)

        def keep(cache: Path) -> None:
            with replacing(_place_of_import(cache)) as temporary:
                shutil.move(made, temporary)

        yield keep


def object_store(
    given: Path | None, samples: Sequence[Sample], *, cache: Path
) -> tuple[ObjectStore, Coverage]:
    """Open, import or build the store with the objects of these samples.

    Also returns how many samples have a mask to draw, and logs a warning about the others.

    Args:
        given: Parquet file, folder of Parquet shards, folder of JSON files as the authors
            distribute them, or None for graph segmentation, which needs no weights.
        cache: Path for an imported or built store, which later runs reuse; an import that does not
            fit the samples is made again.

    Raises:
        MissingFileError: if ``given`` does not exist.
        UserError: if it has none of these images, or its masks have another size.
    """
    if given is None:
        build_store(samples, cache, wait=True)  # another run on the same images may be making it
        given = cache
    check_given(given)
    if _is_json(given):
        store, found = _imported(given, samples, _place_of_import(cache))
    else:
        store, found = _opened(given, samples)
    if found.without:
        logger.warning("%s: %s", store.path, found.sentence)
    return store, found


def _is_json(given: Path) -> bool:
    return given.is_dir() and not visible(given, "*.parquet")


def _place_of_import(cache: Path) -> Path:
    return cache.with_suffix(".parquet")


def _imported(given: Path, samples: Sequence[Sample], path: Path) -> tuple[ObjectStore, Coverage]:
    if path.is_file():
        with suppress(UserError):  # earlier versions left rejected imports
            return _opened(path, samples)
    with replacing(path) as temporary:
        _import(given, temporary, samples)
    return _opened(path, samples)


def _import(given: Path, path: Path, samples: Sequence[Sample]) -> None:
    store = import_json(given, path)
    store.path = given  # errors name what the user gave
    coverage(store, samples, filter=ObjectFilter())


def _opened(given: Path, samples: Sequence[Sample]) -> tuple[ObjectStore, Coverage]:
    store = ObjectStore(given)
    return store, coverage(store, samples, filter=ObjectFilter())
