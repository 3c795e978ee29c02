"""Images in, maps and an index out: a few of them, or a whole archive over several nights."""

from __future__ import annotations

import errno
import re
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from s5mars.errors import UserError
from s5mars.files import is_disk_full, write_bytes
from s5mars.files.locking import only_one
from s5mars.parallel.ahead import ahead
from s5mars.predict.index import INDEX, write_index
from s5mars.predict.local import local_engine
from s5mars.predict.manifest import Counts, Manifest
from s5mars.predict.predictor import Predictor
from s5mars.predict.product_maps import DEFAULT_WRITE, Maps, Wish
from s5mars.predict.reading import Failed, Readers, failed
from s5mars.predict.settings import settings_of
from s5mars.predict.sources import find_sources, refuse_overwriting

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = ("local", "ray")

WRITERS = 2
"""Threads that write finished files; as many finished products wait at most."""

_TEMPORARY = re.compile(r"\.(?P<file>.+)\.\d+\.tmp")
_BAD_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


@dataclass(frozen=True)
class Summary:
    """What an output folder holds after a run."""

    counts: Counts
    index: Path
    failure: str | None = None  # the first failed product's reason, in the order of names
    doubt: str = ""  # see ``Predictor.doubt``

    def __str__(self) -> str:
        """What the user is told."""
        doubt = f"; {self.doubt}" if self.doubt else ""
        first = f"; first failure: {self.failure}" if self.failure else ""
        return f"{self.index}: {self.counts}{doubt}{first}"


def predict_images(
    predictor: Predictor,
    inputs: Sequence[str | Path],
    *,
    out: str | Path,
    write: Sequence[str] = DEFAULT_WRITE,
    resume: bool = False,
    skip_bad: bool = False,
    workers: int = 2,
    engine: Engine = "local",
    address: str | None = None,
    opacity: float = 0.5,
) -> Summary:
    """Predict images and write their maps, every file by rename.

    For each product, as far as ``write`` asks for it: ``NAME.png`` (indexed colours, class indices,
    255 = no data or no class, at full size), ``NAME_confidence.png`` (grey, largest class
    probability, 0..255 for 0..1), ``NAME_overlay.jpg`` and ``NAME_rle.json`` (COCO run lengths).
    Then ``index.parquet``, a row a product, and ``summary.csv``, an extract. Products of a folder
    keep their sub-folders. Black borders (``s5mars.products.no_data``) and pixels that are missing
    in their product become 255. ``products.open_product`` says what can be read. It is done in
    processes of their own: a product that crashes its reader has failed, like any other bad one.

    ``manifest.sqlite`` knows which products are done, failed, or still to do. Killed at any moment,
    the same call with ``resume`` ends with the same files as an unbroken one. A product that cannot
    be read or predicted is recorded with its reason and stops no other.

    Args:
        predictor: see ``s5mars.load``.
        inputs: image or product files, or folders that are searched with all their sub-folders.
        out: folder for the maps; made if it is not there.
        write: some of ``labels``, ``confidence``, ``overlay``, ``rle``.
        resume: go on with an unfinished run, try failed products again, and take in new ones. A
            finished folder can be given without it: the inputs are then predicted again, and what
            else is in the folder stays.
        skip_bad: failed products are no error.
        workers: processes that read, and as many threads that encode, or with Ray, models at work;
            the files are the same for any number.
        engine: ``"local"`` or ``"ray"``.
        address: of an existing Ray cluster; None starts Ray on this machine.
        opacity: of the class colours in overlays, in [0, 1].

    Raises:
        MissingFileError: if an input is not there.
        UserError: if a folder holds no image, an image would be overwritten, ``out`` was begun
            with another model or other settings, or another run is writing to it; at the end, if
            all products failed, or some did and ``skip_bad`` is off; if Ray is asked for and not
            installed.
        OSError: if writing fails; a full disk is said in words. Nothing done is lost.
    """
    out = Path(out)
    wish = Wish(predictor.taxonomy, tuple(write), opacity)
    if workers < 1:
        raise UserError(f"{workers} workers: the least is 1")
    if engine not in ENGINES:
        raise UserError(f"engine {engine!r}: choose from {', '.join(ENGINES)}")
    if address is not None and engine != "ray":
        raise UserError("an address is Ray's: add --engine ray")
    sources = find_sources(inputs, out=out)
    refuse_overwriting(sources, out)
    with only_one(out), Manifest(out) as manifest:
        manifest.begin(settings_of(predictor, write=wish.write, opacity=opacity), resume=resume)
        manifest.add(sources, again=not resume)
        _remove_half_files(out)
        try:
            _work(manifest, predictor, wish, workers=workers, engine=engine, address=address)
        except (KeyboardInterrupt, OSError) as error:
            _say_how_to_go_on(manifest, predictor, error)
        finally:
            with suppress(OSError):
                manifest.end()
        write_index(manifest, predictor.taxonomy)
        reasons = (entry.reason for entry in manifest.entries("failed"))
        summary = Summary(manifest.counts(), out / INDEX, next(reasons, None), predictor.doubt)
    _judge(summary, skip_bad=skip_bad)
    return summary


def _work(
    manifest: Manifest,
    predictor: Predictor,
    wish: Wish,
    *,
    workers: int,
    engine: Engine,
    address: str | None,
) -> None:
    # Over one of them a run died, perhaps: all others first, and then each of them alone.
    suspects = manifest.suspects()
    names = {source.name for source in suspects}
    entries = (entry.source for entry in manifest.entries("to do"))
    others = [source for source in entries if source.name not in names]
    total = len(others) + len(suspects)
    with tqdm(total=total, unit="image", desc="predict", disable=None) as bar:
        if engine == "ray":
            from s5mars.predict.ray_engine import ray_engine

            every = [*others, *suspects]
            results = ray_engine(predictor, every, wish, workers=workers, address=address)
            _record(manifest, results, bar)
            return
        with closing(Readers(most=workers)) as read:
            for sources in (others, *([suspect] for suspect in suspects)):
                results = local_engine(
                    predictor, sources, wish, workers=workers, read=read, journal=manifest
                )
                _record(manifest, results, bar)


def _record(manifest: Manifest, results: Generator[Maps | Failed, None, None], bar: Any) -> None:
    write = partial(_write, manifest.out)
    with closing(results), closing(ahead(write, results, workers=WRITERS)) as written:
        for result in written:
            if isinstance(result, Failed):
                manifest.record_failed(result.source.name, result.reason)
            else:
                manifest.record_done(result.source.name, result.facts)
            bar.update()


def _write(out: Path, result: Maps | Failed) -> Maps | Failed:
    if isinstance(result, Failed):
        return result
    try:
        for name, content in result.files.items():
            write_bytes(out / name, content)
    except OSError as error:
        if error.errno in _BAD_NAME:  # this product's own fault
            return failed(result.source, error)
        raise
    return result


def _remove_half_files(out: Path) -> None:
    """What a killed run was writing; the manifest's lock says that no other run is at it."""
    for path in out.rglob(".*.tmp"):
        found = _TEMPORARY.fullmatch(path.name)
        if found and Path(found["file"]).suffix in (".png", ".jpg", ".json", ".parquet", ".csv"):
            path.unlink(missing_ok=True)


def _say_how_to_go_on(
    manifest: Manifest, predictor: Predictor, error: KeyboardInterrupt | OSError
) -> None:
    # The manifest has it all; where the index cannot be written, the next run writes it.
    with suppress(OSError):
        write_index(manifest, predictor.taxonomy)
    way_out = f"{manifest.out}: {manifest.counts()}; the same command with --resume goes on"
    if isinstance(error, KeyboardInterrupt):
        raise KeyboardInterrupt(way_out) from None
    reason = error.args[-1] if is_disk_full(error) else str(error)
    raise OSError(f"{reason}; {way_out}") from error


def _judge(summary: Summary, *, skip_bad: bool) -> None:
    counts = summary.counts
    if not counts.done:
        raise UserError(f"no image could be read, {counts.failed} failed; {summary.failure}")
    if counts.failed and not skip_bad:
        raise UserError(
            f"{counts}: all others are done, and {summary.index} lists the failed ones; "
            f"--skip-bad takes them for no error; first: {summary.failure}"
        )
