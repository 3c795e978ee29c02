"""Making a store: proposals of every image, in shards that appear whole, by many processes.

A killed run loses one shard of work at most, and goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.proposals.hardware import Hardware
from s5mars.proposals.proposal import Proposal
from s5mars.proposals.store import ObjectStore, write_store
from s5mars.types import Sample

SHARD_IMAGES = 64
"""Images a shard of ``build_store``: what a killed run loses at most."""

Proposer = Callable[[NDArray[np.uint8]], list[Proposal]]
"""An image (H, W, 3) uint8 to its proposals, best first."""


def build_store(
    samples: Sequence[Sample],
    path: Path | str,
    *,
    proposer: str = "graph",
    settings: Any = None,
    workers: int = 1,
    progress: bool = True,
    shard_images: int = SHARD_IMAGES,
    hardware: Hardware | None = None,
) -> ObjectStore:
    """Find the objects of every sample's image and store them as shards in the folder ``path``.

    A shard appears when its last image is done, so a killed run loses one shard of work at most;
    called again it computes only what is missing. The content does not depend on ``workers``.

    Args:
        samples: ``s5mars.types.Sample``; only ``name`` and ``image`` are used, no mask is opened.
        path: folder of the shards; made if absent.
        proposer: a key of ``PROPOSERS``.
        settings: dataclass of that proposer's settings (``GraphSettings``, ``SamSettings``); None
            for the defaults of ``graph``.
        workers: processes; with SAM on GPUs they take them in turn.
        progress: show a bar with the remaining time.
        shard_images: images a shard.
        hardware: what SAM computes with.

    Raises:
        FileNotFoundError: if SAM's weights cannot be had.
        ValueError: if ``path`` holds a store of another proposer or other settings, or an image
            is unreadable (named), or weights do not fit; finished shards stay.
    """
    if proposer not in PROPOSERS:
        raise ValueError(f"no proposer {proposer!r}; there are: {', '.join(PROPOSERS)}")
    if workers < 1 or shard_images < 1:
        raise ValueError(f"{workers} workers, {shard_images} images a shard: need at least 1")
    kind = PROPOSERS[proposer]
    if settings is None:
        settings = kind.defaults()
    described = kind.describe(settings)
    path = Path(path)
    todo = _missing_samples(samples, path, proposer, described)
    if todo:
        path.mkdir(parents=True, exist_ok=True)
        propose = partial(_propose, proposer, settings, hardware or Hardware())
        try:
            _write_shards(todo, path, propose, workers, progress, shard_images, proposer, described)
        finally:
            _ready.cache_clear()  # a network, perhaps
    return ObjectStore(path)


def _write_shards(
    todo: Sequence[Sample],
    path: Path,
    propose: Callable[[Sample], list[Proposal]],
    workers: int,
    progress: bool,
    shard_images: int,
    proposer: str,
    settings: Mapping[str, object],
) -> None:
    from tqdm import tqdm

    with tqdm(
        total=len(todo), desc="object proposals", unit="image", disable=None if progress else True
    ) as bar:
        results = _in_order(propose, todo, workers)
        try:
            for start in range(0, len(todo), shard_images):
                rows = []
                for sample in todo[start : start + shard_images]:
                    rows.append((sample.name, next(results)))
                    bar.update()
                # Named by content, so that no run ever replaces the shard of another one.
                names = "\n".join(name for name, _ in rows)
                digest = hashlib.sha256(names.encode()).hexdigest()[:16]
                write_store(
                    path / f"part-{digest}.parquet", rows, proposer=proposer, settings=settings
                )
        finally:
            results.close()


def _in_order(
    propose: Callable[[Sample], list[Proposal]], todo: Sequence[Sample], workers: int
) -> Generator[list[Proposal], None, None]:
    """Results in the order of ``todo``; closing the generator drops what has not begun."""
    workers = min(workers, len(todo))
    if workers == 1:
        yield from map(propose, todo)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # Not fork: the caller may hold threads (torch, Arrow) that a forked child would deadlock on.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_number_worker, initargs=(context.Value("i", 0),)
    )
    try:
        yield from executor.map(propose, todo)
    finally:
        executor.shutdown(cancel_futures=True)


_worker = 0
"""Which of the processes this is."""


def _number_worker(count: Any) -> None:
    global _worker
    with count.get_lock():
        _worker = count.value
        count.value += 1


def _propose(proposer: str, settings: Any, hardware: Hardware, sample: Sample) -> list[Proposal]:
    from s5mars.data.read import read_image

    return _ready(proposer, settings, hardware.of_worker(_worker))(read_image(sample.image))


@lru_cache(maxsize=1)
def _ready(proposer: str, settings: Any, hardware: Hardware) -> Proposer:
    """The proposer of this process; weights are loaded once."""
    return PROPOSERS[proposer].make(settings, hardware)


@dataclass(frozen=True)
class Kind:
    """A way to make proposals. Settings are frozen dataclasses, and travel to other processes."""

    defaults: Callable[[], Any]
    describe: Callable[[Any], dict[str, object]]  # what a store says of its settings
    make: Callable[[Any, Hardware], Proposer]


def _graph_settings() -> Any:
    from s5mars.proposals.graph import GraphSettings

    return GraphSettings()


def _graph_proposer(settings: Any, _: Hardware) -> Proposer:
    from s5mars.data.read import no_data
    from s5mars.proposals.graph import graph_proposals

    return lambda image: graph_proposals(image, settings=settings, valid=~no_data(image))


def _sam_settings() -> Any:
    raise ValueError("the proposer sam needs --weights: a folder of SAM's weights, or a hub id")


def _describe_sam(settings: Any) -> dict[str, object]:
    """Weights by their digest: a folder may be moved, and two may have the same name."""
    from s5mars.pretrained import digest
    from s5mars.proposals.sam_weights import family, weights_folder

    folder = weights_folder(settings.weights)
    local = Path(settings.weights).is_dir()
    return {
        **_as_stored(settings),
        "weights": Path(settings.weights).resolve().name if local else settings.weights,
        "family": family(folder),
        "digest": digest(folder),
    }


def _sam_proposer(settings: Any, hardware: Hardware) -> Proposer:
    from s5mars.proposals.sam import SamProposer

    return SamProposer(settings, hardware)


def _as_stored(settings: Any) -> dict[str, object]:
    # Through JSON, because that is how a stored shard gives them back (lists for tuples).
    described: dict[str, object] = json.loads(json.dumps(asdict(settings)))
    return described


PROPOSERS = {
    "graph": Kind(_graph_settings, _as_stored, _graph_proposer),
    "sam": Kind(_sam_settings, _describe_sam, _sam_proposer),
}


def _missing_samples(
    samples: Sequence[Sample], path: Path, proposer: str, settings: Mapping[str, object]
) -> list[Sample]:
    """The samples that the store at ``path``, if any, has not got."""
    try:
        store = ObjectStore(path)
    except FileNotFoundError:
        return list(samples)
    if (store.proposer, store.settings) != (proposer, settings):
        raise ValueError(
            f"{path}: made by {store.proposer} with {store.settings}, asked for {proposer} with "
            f"{settings}; ask for the same, choose another path, or delete it"
        )
    missing = set(store.missing(sample.name for sample in samples))
    if missing and path.is_file():
        raise ValueError(
            f"{path}: one file, it cannot be continued for the {len(missing)} images that it "
            "lacks; choose another path, or move it as a shard into a folder and give the folder"
        )
    return [sample for sample in samples if sample.name in missing]
