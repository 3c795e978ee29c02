"""Making a store: proposals of every image, in shards that appear whole, by many processes.

Whoever finds them, one process, several, or Ray's workers: this one puts them in order and writes,
so the shards are the same, byte for byte. A killed run loses one shard and what the workers have in
hand, and goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from s5mars.errors import UserError
from s5mars.files.locking import only_one
from s5mars.parallel.ahead import ahead
from s5mars.parallel.cluster import Engine, check_engine
from s5mars.parallel.workers import CrashError, Processes
from s5mars.proposals.hardware import Hardware
from s5mars.proposals.proposal import Proposal
from s5mars.proposals.store import ObjectStore, write_store

if TYPE_CHECKING:  # it brings torch, which processes of ``graph`` do without
    from s5mars.types import Sample

SHARD_IMAGES = 64
"""Images a shard of ``build_store``: what a killed run loses at most."""

AHEAD = 4
"""Images that a worker may be ahead of the one that is waited for: they do not take equal times."""

TRIES = 2
"""Times that an image is tried whose worker died: of its fault, or of somebody else's."""

Propose = Callable[[Path], list[Proposal]]
"""An image file to its proposals, best first."""

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
    engine: Engine = "local",
    address: str | None = None,
) -> ObjectStore:
    """Find the objects of every sample's image and store them as shards in the folder ``path``.

    A shard appears when its last image is done, so a killed run loses one shard of work and at most
    ``AHEAD`` images a worker; called again it computes only what is missing. The files do not
    depend on ``workers`` or ``engine``. A worker that dies is replaced, and its image done again.

    Args:
        samples: ``s5mars.types.Sample``; only ``name`` and ``image`` are used, no mask is opened.
        path: folder of the shards; made if absent.
        proposer: a key of ``PROPOSERS``.
        settings: dataclass of that proposer's settings (``GraphSettings``, ``SamSettings``); None
            for the defaults of ``graph``.
        workers: processes, each with one thread; with SAM on GPUs they take them in turn. One is
            this process itself.
        progress: show a bar with the remaining time.
        shard_images: images a shard.
        hardware: what SAM computes with.
        engine: ``"ray"``: the processes are Ray's, which must find images and weights under the
            same paths.
        address: of a Ray cluster; None starts Ray on this machine.

    Raises:
        MissingFileError: if SAM's weights cannot be had.
        UserError: if ``path`` holds a store of another proposer or other settings, or an image
            is unreadable or kills its workers (named), or weights do not fit; finished shards stay.
            If Ray is asked for and not installed or not there.
    """
    check_engine(engine, address)
    if proposer not in PROPOSERS:
        raise UserError(f"no proposer {proposer!r}; there are: {', '.join(PROPOSERS)}")
    if workers < 1 or shard_images < 1:
        raise UserError(f"{workers} workers, {shard_images} images a shard: need at least 1")
    kind = PROPOSERS[proposer]
    if settings is None:
        settings = kind.defaults()
    described = kind.describe(settings)
    path = Path(path)
    todo = _missing_samples(samples, path, proposer, described)
    if todo:
        hardware = hardware or Hardware()
        workers = min(workers, len(todo))
        found = _found(
            [sample.image for sample in todo],
            partial(_start, proposer, settings, hardware),
            workers=workers,
            waiting=workers * min(AHEAD, shard_images),
            engine=engine,
            address=address,
            on_gpu=proposer == "sam" and hardware.device in {"auto", "cuda"},
        )
        with only_one(path), closing(found):
            _write_shards(todo, path, found, progress, shard_images, proposer, described)
    return ObjectStore(path)


def _write_shards(
    todo: Sequence[Sample],
    path: Path,
    found: Iterator[list[Proposal]],
    progress: bool,
    shard_images: int,
    proposer: str,
    settings: Mapping[str, object],
) -> None:
    from tqdm import tqdm

    with tqdm(
        total=len(todo), desc="object proposals", unit="image", disable=None if progress else True
    ) as bar:
        for start in range(0, len(todo), shard_images):
            rows = []
            for sample in todo[start : start + shard_images]:
                rows.append((sample.name, next(found)))
                bar.update()
            # Named by content, so that no run ever replaces the shard of another one.
            names = "\n".join(name for name, _ in rows)
            digest = hashlib.sha256(names.encode()).hexdigest()[:16]
            write_store(path / f"part-{digest}.parquet", rows, proposer=proposer, settings=settings)


def _found(
    images: Sequence[Path],
    start: Callable[[int], Propose],
    *,
    workers: int,
    waiting: int,
    engine: Engine,
    address: str | None,
    on_gpu: bool,
) -> Generator[list[Proposal], None, None]:
    """Proposals of the images in their order, by ``workers`` processes."""
    if engine == "ray":
        from s5mars.parallel.cluster import RayWorkers, connected

        with connected(address, workers=workers) as ray:
            pool = RayWorkers(ray, start, most=workers, on_gpu=on_gpu)
            yield from _ahead(pool, images, workers=workers, waiting=waiting)
    elif workers == 1:
        yield from map(start(0), images)
    else:
        with closing(Processes(start, most=workers)) as processes:
            yield from _ahead(processes, images, workers=workers, waiting=waiting)


def _ahead(
    propose: Propose, images: Sequence[Path], *, workers: int, waiting: int
) -> Generator[list[Proposal], None, None]:
    work = partial(_again, propose)
    with closing(ahead(work, images, workers=workers, waiting=waiting)) as found:
        yield from found


def _again(propose: Propose, image: Path) -> list[Proposal]:
    for _ in range(TRIES):
        try:
            return propose(image)
        except CrashError as error:
            crash = error
    raise UserError(
        f"{image}: {TRIES} workers died over it ({crash}): take fewer --workers if memory is "
        "short, else replace the image or leave it out"
    )


def _start(proposer: str, settings: Any, hardware: Hardware, number: int) -> Propose:
    """What worker ``number`` does; weights are loaded once."""
    from s5mars.data.read import read_image

    propose = PROPOSERS[proposer].make(settings, hardware, number)
    return lambda image: propose(read_image(image))


@dataclass(frozen=True)
class Kind:
    """A way to make proposals. Settings are frozen dataclasses, and travel to other processes."""

    defaults: Callable[[], Any]
    describe: Callable[[Any], dict[str, object]]  # what a store says of its settings
    make: Callable[[Any, Hardware, int], Proposer]  # by which worker


def _graph_settings() -> Any:
    from s5mars.proposals.graph import GraphSettings

    return GraphSettings()


def _graph_proposer(settings: Any, _hardware: Hardware, _worker: int) -> Proposer:
    from s5mars.products.no_data import no_data
    from s5mars.proposals.graph import graph_proposals

    return lambda image: graph_proposals(image, settings=settings, valid=~no_data(image))


def _sam_settings() -> Any:
    raise UserError("the proposer sam needs --weights: a folder of SAM's weights, or a hub id")


def _describe_sam(settings: Any) -> dict[str, object]:
    """Weights by their digest: a folder may be moved, and two may have the same name."""
    from s5mars.models.pretrained import digest
    from s5mars.proposals.sam_weights import family, weights_folder

    folder = weights_folder(settings.weights)
    local = Path(settings.weights).is_dir()
    return {
        **_as_stored(settings),
        "weights": Path(settings.weights).resolve().name if local else settings.weights,
        "family": family(folder),
        "digest": digest(folder),
    }


def _sam_proposer(settings: Any, hardware: Hardware, worker: int) -> Proposer:
    from s5mars.proposals.sam import SamProposer

    return SamProposer(settings, hardware.of_worker(worker))


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
        raise UserError(
            f"{path}: made by {store.proposer} with {store.settings}, asked for {proposer} with "
            f"{settings}; ask for the same, choose another path, or delete it"
        )
    missing = set(store.missing(sample.name for sample in samples))
    if missing and path.is_file():
        raise UserError(
            f"{path}: one file, it cannot be continued for the {len(missing)} images that it "
            "lacks; choose another path, or move it as a shard into a folder and give the folder"
        )
    return [sample for sample in samples if sample.name in missing]
