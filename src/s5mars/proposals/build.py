"""Builds an object store: computes the proposals of all images and writes them as shards.

The proposals are computed by one process, several processes or Ray. This process orders and writes
them, so the shards are identical in all cases. A killed run loses at most one shard and the images
in progress, and resumes where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.errors import UserError, require_choice
from s5mars.files import file_digest
from s5mars.files.locking import locked
from s5mars.parallel.ahead import ahead
from s5mars.parallel.cluster import Engine, check_engine
from s5mars.parallel.workers import CrashError, Processes
from s5mars.proposals.proposal import Proposal
from s5mars.proposals.store import ObjectStore, write_store
from s5mars.types import Sample

SHARD_IMAGES = 64
"""Images per shard: a killed run loses at most one shard."""

AHEAD = 4
"""Images per worker that may be computed ahead, because images take different times."""

_DIGITS = 16

TRIES = 2
"""Number of attempts for an image whose worker died."""

Propose = Callable[[Path], list[Proposal]]
"""Image file → its proposals, best first."""

Proposer = Callable[[NDArray[np.uint8], NDArray[np.bool_]], list[Proposal]]
"""Image (H, W, 3) uint8, where it has data (H, W) → its proposals, best first."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Hardware settings of one process of SAM, which change the speed and not the proposals."""

    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    points: int = 64  # prompts per pass of the decoder: more need more memory
    compile: bool = False  # compile the image encoder: about a minute, then faster

    def __post_init__(self) -> None:
        if self.points < 1:
            raise UserError(f"--points must be at least 1 (got {self.points})")

    def of_worker(self, number: int) -> Hardware:
        """Return the settings of one of several processes, distributed over the GPUs."""
        import torch

        if self.device not in {"auto", "cuda"} or not torch.cuda.is_available():
            return self
        return replace(self, device=f"cuda:{number % torch.cuda.device_count()}")


def build_store(
    samples: Sequence[Sample],
    path: Path | str,
    *,
    proposer: str = "graph",
    settings: Any = None,
    workers: int = 1,
    shard_images: int = SHARD_IMAGES,
    hardware: Hardware | None = None,
    engine: Engine = "local",
    address: str | None = None,
    wait: bool = False,
) -> ObjectStore:
    """Find the objects in all images and store them as shards in the folder ``path``.

    A shard is written when its last image is finished, so a killed run loses at most one shard and
    ``AHEAD`` images per worker. If called again, only missing images are computed. The files do not
    depend on ``workers`` or ``engine``. A worker that dies is replaced, and its image is repeated.

    Args:
        samples: Only ``name`` and ``image`` are used; no mask is opened.
        proposer: Key of ``PROPOSERS``.
        settings: ``GraphSettings`` or ``SamSettings``; None for the defaults of ``graph``.
        workers: Number of processes, each with one thread; with SAM they are distributed over the
            GPUs. With 1, this process computes.
        engine: ``"local"`` or ``"ray"``. Workers of Ray must find images and weights under the same
            paths.
        address: Address of a Ray cluster; None starts Ray on this machine.
        wait: Wait for another process that builds this store, instead of raising; then only what
            it left out is computed.

    Raises:
        MissingFileError: if the weights of SAM are not available.
        UserError: if ``path`` contains a store of another proposer, of other settings or of other
            images with the same names, an image is unreadable or kills its workers, weights do not
            fit, or Ray is not available. Finished shards are kept.
    """
    check_engine(engine, address)
    require_choice(proposer, PROPOSERS, name="--proposer")
    if workers < 1 or shard_images < 1:
        raise UserError(
            f"--workers and --shard must be at least 1 (got {workers} and {shard_images})"
        )
    kind = PROPOSERS[proposer]
    if settings is None:
        settings = kind.defaults()
    described = kind.describe(settings)
    path = Path(path)
    if _missing_samples(samples, path, proposer, described):
        hardware = hardware or Hardware()
        with locked(path, wait=wait):
            # Another process may have added some before this one held the lock.
            todo = _missing_samples(samples, path, proposer, described)
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
            with closing(found):
                _write_shards(todo, path, found, shard_images, proposer, described)
    return ObjectStore(path)


def _write_shards(
    todo: Sequence[Sample],
    path: Path,
    found: Iterator[list[Proposal]],
    shard_images: int,
    proposer: str,
    settings: Mapping[str, object],
) -> None:
    from tqdm import tqdm

    with tqdm(total=len(todo), desc="object proposals", unit="image", disable=None) as bar:
        for start in range(0, len(todo), shard_images):
            rows, digests = [], {}
            for sample in todo[start : start + shard_images]:
                rows.append((sample.name, next(found)))
                digests[sample.name] = _image_digest(sample)
                bar.update()
            # Named by content, so that no run replaces the shard of another run.
            part = _digest("\n".join(digests).encode())
            write_store(
                path / f"part-{part}.parquet",
                rows,
                proposer=proposer,
                settings=settings,
                digests=digests,
            )


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
    """Yield the proposals of the images in their order, computed by ``workers`` processes."""
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
        f"{image}: {TRIES} workers died on this image ({crash}): use fewer --workers if memory is "
        "short; otherwise replace the image or leave it out"
    )


def _start(proposer: str, settings: Any, hardware: Hardware, number: int) -> Propose:
    """Create the function of worker ``number``; weights are loaded once."""
    from s5mars.data.read import open_image, without_data

    propose = PROPOSERS[proposer].make(settings, hardware, number)

    def of_file(path: Path) -> list[Proposal]:
        image = open_image(path)
        return propose(np.asarray(image), ~without_data(image))

    return of_file


@dataclass(frozen=True)
class Kind:
    """A method to compute proposals. Settings are frozen dataclasses, which are pickled."""

    defaults: Callable[[], Any]
    describe: Callable[[Any], dict[str, object]]  # settings as a store records them
    make: Callable[[Any, Hardware, int], Proposer]  # settings, hardware, worker number


def _graph_settings() -> Any:
    from s5mars.proposals.graph import GraphSettings

    return GraphSettings()


def _graph_proposer(settings: Any, _hardware: Hardware, _worker: int) -> Proposer:
    from s5mars.proposals.graph import graph_proposals

    return lambda image, valid: graph_proposals(image, settings=settings, valid=valid)


def _sam_settings() -> Any:
    raise UserError("--proposer sam needs --weights: a folder with weights of SAM, or a hub id")


def _describe_sam(settings: Any) -> dict[str, object]:
    """Identify weights by their digest, because folders may be moved or have equal names."""
    from s5mars.models.pretrained import digest
    from s5mars.models.sam_weights import family, weights_folder

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
    # Through JSON, to be comparable with stored settings (lists for tuples).
    described: dict[str, object] = json.loads(json.dumps(asdict(settings)))
    return described


PROPOSERS = {
    "graph": Kind(_graph_settings, _as_stored, _graph_proposer),
    "sam": Kind(_sam_settings, _describe_sam, _sam_proposer),
}


def _missing_samples(
    samples: Sequence[Sample], path: Path, proposer: str, settings: Mapping[str, object]
) -> list[Sample]:
    """The samples that are not in the store at ``path``, if it exists."""
    try:
        store = ObjectStore(path)
    except FileNotFoundError:
        return list(samples)
    if (store.proposer, store.settings) != (proposer, settings):
        raise UserError(
            f"{path} was made by {store.proposer} with {store.settings}, not by {proposer} with "
            f"{settings}: use the same settings, choose another --out, or delete it"
        )
    for sample in samples:
        known = store.digests.get(sample.name)
        if known is not None and known != _image_digest(sample):
            raise UserError(
                f"{path} has masks of another image with the name {sample.name!r} than "
                f"{sample.image}: use another folder for these images"
            )
    missing = set(store.missing(sample.name for sample in samples))
    if missing and path.is_file():
        raise UserError(
            f"{path} is a file and lacks {len(missing)} images: choose another --out, or move the "
            "file into a folder and give the folder"
        )
    return [sample for sample in samples if sample.name in missing]


def _image_digest(sample: Sample) -> str:
    return file_digest(sample.image)[:_DIGITS]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
