"""Predict a few images or a whole archive, and write maps and an index."""

from __future__ import annotations

import errno
import re
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from s5mars.errors import UserError
from s5mars.files import given_path, is_disk_full, numbered, printable, write_bytes
from s5mars.files.locking import locked
from s5mars.parallel.ahead import ahead
from s5mars.parallel.cluster import Engine, check_engine
from s5mars.predict.index import write_index
from s5mars.predict.local import local_engine
from s5mars.predict.manifest import Counts, Manifest
from s5mars.predict.predictor import Predictor
from s5mars.predict.product_maps import DEFAULT_WRITE, Maps, MapSettings
from s5mars.predict.reading import Failed, Readers, failed
from s5mars.predict.settings import settings_of
from s5mars.predict.sources import (
    INDEX,
    MANIFEST,
    TABLE,
    Names,
    Source,
    find_sources,
    refuse_existing,
    refuse_overwriting_inputs,
    refuse_overwriting_others,
)
from s5mars.text.numbers import plural

WRITERS = 2
"""Number of threads that write finished files, and largest number of products that wait."""

_TEMPORARY = re.compile(r"\.(?P<file>.+)\.\d+\.tmp")
_BAD_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


@dataclass(frozen=True)
class Summary:
    """Contents of an output folder after a run."""

    counts: Counts
    index: Path
    failure: str | None = None  # reason of the first failed product by name
    confidence_note: str = ""  # see ``Predictor.confidence_note``
    domain_note: str = ""  # how many products are out of domain and how that was decided
    gone_note: str = ""  # how many products have lost their image since they were predicted

    def __str__(self) -> str:
        note = f"; {self.confidence_note}" if self.confidence_note else ""
        first = f"; first failure: {self.failure}" if self.failure else ""
        more = "".join(f"\n{line}" for line in (self.domain_note, self.gone_note) if line)
        return f"{self.index}: {self.counts}{note}{first}{more}"


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
) -> Summary:
    """Predict images and write their maps; each file is written to a temporary name and renamed.

    For each product, ``write`` selects among ``NAME.png`` (indexed colours, class indices, 255 = no
    data or no class, at full size), ``NAME_confidence.png`` (grey, largest class probability,
    0..255 for 0..1), ``NAME_overlay.jpg`` and ``NAME_rle.json`` (COCO run lengths). In addition,
    ``index.parquet`` has one row per product, and ``summary.csv`` is an extract of it. Products of
    a folder keep their sub-folders. Black borders (``s5mars.products.no_data``) and missing pixels
    become 255. Products are read (see ``products.open_product``) in separate processes, so that a
    product that crashes its reader fails like any other bad product.

    ``manifest.sqlite`` records which products are done, failed or to do. If a run is killed, the
    same call with ``resume`` produces the same files as an uninterrupted run. A product that cannot
    be read or predicted is recorded with its reason and does not stop the others.

    Args:
        predictor: see ``s5mars.load``.
        write: some of ``labels``, ``confidence``, ``overlay``, ``rle``.
        resume: continue an unfinished run, retry failed products, repeat those whose image has
            changed, and add new ones. Without it, a finished folder is accepted: the inputs are
            predicted again and its other files are kept.
        workers: number of reading processes and of encoding threads, or with Ray, number of models;
            it does not change the files.
        engine: ``"local"`` or ``"ray"``.
        address: address of an existing Ray cluster; None starts Ray on this machine.

    Raises:
        MissingFileError: if an input does not exist.
        UserError: if a folder contains no image, an image or a file that no earlier run into
            ``out`` wrote would be overwritten, ``out`` was started with another model or other
            settings, or another run is writing to it; at the end, if all products failed, or some
            failed and ``skip_bad`` is off; if Ray is requested but not installed.
        OSError: if writing fails, for example because the disk is full. Finished products are kept.
    """
    out = given_path(out)
    settings = MapSettings(predictor.taxonomy, tuple(write))
    if workers < 1:
        raise UserError(f"--workers must be at least 1 (got {workers})")
    check_engine(engine, address)
    sources = find_sources(inputs, out=out)
    refuse_overwriting_inputs(sources, out)
    if not (out / MANIFEST).exists():
        _check_new_folder(out, sources, settings.write)
    with locked(out), Manifest(out) as manifest:
        described = settings_of(predictor, write=settings.write)
        manifest.start(sources, described, resume=resume)
        _remove_half_files(out)
        try:
            _work(manifest, predictor, settings, workers=workers, engine=engine, address=address)
        except (KeyboardInterrupt, OSError) as error:
            _raise_with_remedy(manifest, predictor, error)
        finally:
            with suppress(OSError):
                manifest.end()
        write_index(manifest, predictor.taxonomy)
        reasons = (entry.reason for entry in manifest.entries("failed"))
        summary = Summary(
            manifest.counts(),
            out / INDEX,
            next(reasons, None),
            predictor.confidence_note,
            _domain_note(manifest, predictor),
            _gone_note(manifest, sources),
        )
    _check_failures(summary, skip_bad=skip_bad)
    return summary


def _check_new_folder(out: Path, sources: Sequence[Source], write: Sequence[str]) -> None:
    """Raise before the folder has a manifest if a file in it would be overwritten."""
    names = Names()
    refuse_overwriting_others((names.free(source) for source in sources), out, write)
    for file in (INDEX, TABLE):
        refuse_existing(out / file)


def _work(
    manifest: Manifest,
    predictor: Predictor,
    settings: MapSettings,
    *,
    workers: int,
    engine: Engine,
    address: str | None,
) -> None:
    # One of these may have killed an earlier run: predict them last, one at a time.
    suspects = manifest.suspects()
    names = {source.name for source in suspects}
    entries = (entry.source for entry in manifest.entries("to do"))
    others = [source for source in entries if source.name not in names]
    total = len(others) + len(suspects)
    with tqdm(total=total, unit="image", desc="predict", disable=None) as bar:
        if engine == "ray":
            from s5mars.predict.ray_engine import ray_engine

            every = [*others, *suspects]
            results = ray_engine(predictor, every, settings, workers=workers, address=address)
            _record(manifest, results, bar)
            return
        with closing(Readers(most=workers)) as read:
            for sources in (others, *([suspect] for suspect in suspects)):
                results = local_engine(
                    predictor, sources, settings, workers=workers, read=read, journal=manifest
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
        if error.errno == errno.ENAMETOOLONG:
            return Failed(
                result.source,
                f"{printable(str(result.source.path))}: the name of its maps is too long for the "
                "file system: give the image a shorter name",
            )
        if error.errno in _BAD_NAME:  # the fault of this product alone
            return failed(result.source, error)
        raise
    return result


def _remove_half_files(out: Path) -> None:
    """Remove partial files of a killed run; the manifest's lock excludes another running one."""
    for path in out.rglob(".*.tmp"):
        found = _TEMPORARY.fullmatch(path.name)
        if found and Path(found["file"]).suffix in (".png", ".jpg", ".json", ".parquet", ".csv"):
            path.unlink(missing_ok=True)


def _raise_with_remedy(
    manifest: Manifest, predictor: Predictor, error: KeyboardInterrupt | OSError
) -> None:
    # The manifest is complete; if the index cannot be written now, the next run writes it.
    with suppress(OSError):
        write_index(manifest, predictor.taxonomy)
    remedy = f"{manifest.out}: {manifest.counts()}; run the same command with --resume to continue"
    if isinstance(error, KeyboardInterrupt):
        raise KeyboardInterrupt(remedy) from None
    reason = error.args[-1] if is_disk_full(error) else str(error)
    raise numbered(error.errno, f"{reason}; {remedy}") from error


def _domain_note(manifest: Manifest, predictor: Predictor) -> str:
    """Describe how many products are out of domain, the reasons, and the rule."""
    domain = predictor.domain
    if domain is None:
        return ""
    total, outside = 0, 0
    reasons: dict[str, int] = {}
    for entry in manifest.entries("done"):
        total += 1
        if entry.facts.get("out_of_domain"):
            outside += 1
            for reason in str(entry.facts["out_of_domain_reason"]).split(", "):
                reasons[reason] = reasons.get(reason, 0) + 1
    known = f"the model was trained on {domain.about}"
    if not outside:
        return f"domain: all products are like the training images ({known})"
    counted = ", ".join(f"{reason}: {number:,}" for reason, number in sorted(reasons.items()))
    return (
        f"domain: {outside:,} of {total:,} products differ from the training images ({counted}), "
        f"so their maps may be wrong; {known}. {domain.rule(predictor.resolution)} "
        f"List them with: s5mars find {manifest.out} out_of_domain"
    )


def _gone_note(manifest: Manifest, sources: Sequence[Source]) -> str:
    gone = manifest.without_image(sources)
    if not gone:
        return ""
    number = plural(len(gone), "product of the index is", "products of the index are")
    return f"{number} no longer among the images; the first: {printable(str(gone[0].path))}"


def _check_failures(summary: Summary, *, skip_bad: bool) -> None:
    counts = summary.counts
    if not counts.done:
        raise UserError(
            f"no product could be predicted ({counts.failed:,} failed); first failure: "
            f"{summary.failure}"
        )
    if counts.failed and not skip_bad:
        raise UserError(
            f"{counts}; {summary.index} lists the failed products; use --skip-bad to accept them; "
            f"first failure: {summary.failure}"
        )
