"""The samples of a run, and the labels that it may read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s5mars.data.audit import readable_samples, report_skipped
from s5mars.data.crops import CropSettings, coverage
from s5mars.data.dataset import Dataset
from s5mars.data.layouts.files import read_names
from s5mars.data.names import as_lines
from s5mars.data.partition import draw_partition, pool, withhold
from s5mars.data.read import image_size
from s5mars.data.resolution import Resolution
from s5mars.data.stratify import label_areas
from s5mars.errors import MissingFileError, UserError, listed
from s5mars.files import write_text
from s5mars.files.reading import read_text
from s5mars.files.run_folder import CHECKPOINT, FACTS, METRICS
from s5mars.settings.config import TrainConfig, reads_class_shares
from s5mars.types import Method, Sample

logger = logging.getLogger("s5mars")

SKIPPED = "skipped.txt"
WARNINGS = "warnings.txt"


@dataclass(frozen=True)
class Streams:
    """The samples of a run."""

    labelled: tuple[Sample, ...]
    pool: tuple[Sample, ...] | None  # without the masks of images outside the partition
    selection: tuple[Sample, ...]  # images that choose the best checkpoint; none without val
    areas: NDArray[np.float64] | None  # (N, C), see ``_shown``; None if not needed
    coverage: float = 1.0  # see ``_coverage``
    skipped: tuple[str, ...] = ()  # one line for each skipped image or label
    warnings: tuple[str, ...] = ()  # one line for each warning about labels or the pool
    lost: int = 0  # number of images of the pool that are left out since the run began

    def write(self, folder: Path) -> None:
        """Write one list of names for each stream, so that the run can be repeated exactly."""
        for name, samples in (
            ("labelled", self.labelled), ("pool", self.pool), ("selection", self.selection)
        ):  # fmt: skip
            if samples:
                write_text(folder / f"{name}.txt", as_lines(s.name for s in samples))
        for name, lines in ((SKIPPED, self.skipped), (WARNINGS, self.warnings)):
            if lines:
                write_text(folder / name, "".join(f"{line}\n" for line in lines))


def choose_streams(dataset: Dataset, config: TrainConfig, method: Method) -> Streams:
    """The samples of a new run; every label that it may read is checked once.

    The images of the pool are checked only with ``skip_bad``.

    Raises:
        UserError, MissingFileError: as ``draw_partition``, ``Dataset.split`` and
            ``readable_samples``; if a stream is empty, or all labelled images are smaller than the
            crop.
    """
    skip_bad, coding = config.skip_bad, dataset.coding
    partition, damaged = draw_partition(
        dataset, config.labelled, seed=config.partition_seed, skip_bad=skip_bad
    )
    labelled, damaged_labelled = readable_samples(partition, coding, skip_bad=skip_bad)
    chosen = selection_of(dataset, config)
    for sample in chosen:
        if sample.mask is None:
            raise UserError(
                f"{sample.image} is in the {config.select_on} split but has no mask: add one, or "
                "remove the image from the list"
            )
    selection, damaged_selection = readable_samples(chosen, coding, skip_bad=skip_bad)
    candidates: tuple[Sample, ...] | None = None
    damaged_pool: tuple[str, ...] = ()
    if method.needs.pool:
        candidates = withhold(pool(dataset, config.pool), labelled if config.pool_labels else ())
        if skip_bad:
            candidates, damaged_pool = readable_samples(candidates, coding, skip_bad=True)
    # A file may be in two streams; it is reported once.
    lines = dict.fromkeys((*damaged, *damaged_labelled, *damaged_selection, *damaged_pool))
    report_skipped(lines)
    named = [("labelled", labelled)]
    if chosen:
        named.append((config.select_on, selection))
    if candidates is not None:
        named.append(("pool", candidates))
    for name, samples in named:
        if not samples:
            raise UserError(
                f"{dataset.root}: no readable {name} image is left: repair the files or add others"
            )
    _require_room(labelled, config)
    areas = _shown(labelled, dataset, config)
    warnings = label_warnings(areas, dataset.taxonomy.names, batch=config.batch)
    warnings += _missing_classes(selection, areas, dataset, config.select_on)
    return Streams(
        labelled=labelled,
        pool=candidates,
        selection=selection,
        areas=areas,
        coverage=_coverage(areas, labelled, config, method),
        skipped=tuple(lines),
        warnings=warnings,
    )


def with_usable_alignment(config: TrainConfig, streams: Streams) -> TrainConfig:
    """The settings without alignment if the labels cover too little of the crops.

    Labels that leave out a part of each image on purpose, such as sky and rover in AI4Mars, have
    other class shares than what a teacher says of whole crops.
    """
    return replace(config, alignment=0.0) if no_alignment(config, streams) else config


def no_alignment(config: TrainConfig, streams: Streams) -> str:
    """Why the alignment that the settings ask for is off; "" if it is on or not asked for."""
    if streams.coverage >= config.alignment_coverage:
        return ""
    return (
        f"off, because only {100 * streams.coverage:.0f} % of the pixels of the labelled crops "
        f"have a label (--alignment-coverage {config.alignment_coverage:g})"
    )


def selection_of(dataset: Dataset, config: TrainConfig) -> tuple[Sample, ...]:
    """The images that choose the checkpoint; none if the data has no val split.

    Raises:
        UserError: if another split was asked for and is not there, or the settings need one.
    """
    if config.select_on != "val" or dataset.splits.get("val"):
        return dataset.split(config.select_on)
    if config.keep == "after-warm-up":
        raise UserError(
            f"--keep after-warm-up chooses on the val split, which {dataset.root} does not have; "
            "use --keep last"
        )
    return ()


def label_warnings(
    areas: NDArray[np.float64], names: Sequence[str], *, batch: int
) -> tuple[str, ...]:
    """Warnings about few labels, one line each.

    ``areas`` are (N, C): how much of each class crops of each labelled image show.
    """
    found = []
    count = len(areas)
    if count == 1:
        found.append(
            "There is one labelled image: the score depends more on this image than on the method."
        )
    absent = [name for name, area in zip(names, areas.sum(0), strict=True) if not area]
    if absent:
        one = len(absent) == 1
        found.append(
            f"No labelled pixel of {', '.join(absent)} among the labelled images ({count}): the "
            f"model cannot learn {'this class' if one else 'these classes'}, which "
            f"{'counts' if one else 'count'} as 0 in the mIoU if the scored split has "
            f"{'it' if one else 'them'}."
        )
    if count < batch:
        found.append(
            f"The batch of {batch} is larger than the number of labelled images ({count}): a step "
            "repeats some of them, so the model overfits sooner."
        )
    return tuple(found)


def _missing_classes(
    selection: Sequence[Sample], labelled: NDArray[np.float64], dataset: Dataset, split: str
) -> tuple[str, ...]:
    """A warning about classes that are trained but do not help to choose the checkpoint."""
    areas, _ = label_areas(selection, dataset.coding, len(dataset.taxonomy))
    names = dataset.taxonomy.names
    absent = [n for i, n in enumerate(names) if labelled[:, i].any() and not areas[:, i].any()]
    if not selection or not absent:
        return ()
    return (
        f"No labelled pixel of {', '.join(absent)} in the {split} split: "
        f"{'this class does' if len(absent) == 1 else 'these classes do'} not influence the choice "
        "of the checkpoint or the scores on this split.",
    )


def crop_settings(config: TrainConfig) -> CropSettings:
    """Settings of the crops of a run."""
    return CropSettings(
        size=config.crop,
        scale=config.scale,
        resolution=Resolution.parse(config.resolution),
        fixed=config.network.fixed_crops,
        tiles=config.tiles,
    )


def _shown(
    labelled: Sequence[Sample], dataset: Dataset, config: TrainConfig
) -> NDArray[np.float64]:
    """(N, C) expected number of pixels of each class in a plain crop of each image."""
    weights = partial(coverage, settings=crop_settings(config))
    return label_areas(labelled, dataset.coding, len(dataset.taxonomy), weights=weights)[0]


def _coverage(
    areas: NDArray[np.float64] | None,
    labelled: Sequence[Sample],
    config: TrainConfig,
    method: Method,
) -> float:
    """Share of the pixels of plain labelled crops that have a label; 1 if nothing depends on it."""
    if not (method.needs.pool and config.alignment and config.alignment_coverage):
        return 1.0
    if areas is None:
        raise ValueError("the coverage of labels needs their areas")
    pixels = 0.0
    for sample in labelled:
        rows, columns = coverage(*image_size(sample.image), crop_settings(config))
        pixels += rows.sum(0) @ columns.sum(1)
    return float(areas.sum() / pixels)


def _require_room(samples: Sequence[Sample], config: TrainConfig) -> None:
    """Raise if the crop is larger than every resized image, because the rest would be padding."""
    if config.network.fixed_crops:
        return  # its fixed crops always lie inside the image
    width, height = max((image_size(sample.image) for sample in samples), key=max)
    width, height = Resolution.parse(config.resolution).size(width, height)
    largest = 1.0 if config.tiles else config.scale[1]
    limit = int(max(width, height) * largest)
    if config.crop > limit:
        raise UserError(
            f"--crop must be at most {limit} (got {config.crop}): the largest labelled image of "
            f"{config.data} has {width}×{height} pixels at --resolution {config.resolution}, and "
            f"is enlarged at most {largest:g} times"
        )


def recorded_streams(dataset: Dataset, run: Path, config: TrainConfig, method: Method) -> Streams:
    """The samples that a run recorded when it started.

    A run that was killed while it recorded them has trained nothing, so they are chosen again.
    Images of the pool that were removed since are left out with a warning, and with ``skip_bad``
    those that are damaged by now; then the others are drawn in another order.

    Raises:
        MissingFileError: if a list is missing.
        UserError: if the data no longer hold a listed image with a label, or the whole pool.
    """
    expected = ["labelled", *(["pool"] if method.needs.pool else [])]
    expected += ["selection"] if config.keep != "last" else []
    begun = any((run / name).exists() for name in (CHECKPOINT, METRICS, FACTS))
    if not begun and not all((run / "splits" / f"{name}.txt").is_file() for name in expected):
        streams = choose_streams(dataset, config, method)
        streams.write(run / "splits")
        return streams

    def names_of(name: str) -> list[str]:
        path = run / "splits" / f"{name}.txt"
        if not path.is_file():
            raise MissingFileError(f"{path} is missing: {run} is not a complete run folder")
        return read_names(path)

    labelled = tuple(map(dataset.sample, names_of("labelled")))
    # A run without a selection has written no list of it, and keeps its last checkpoint.
    selected = config.keep != "last" or (run / "splits" / "selection.txt").is_file()
    candidates: tuple[Sample, ...] | None = None
    damaged: tuple[str, ...] = ()
    lost = 0
    warnings = _lines(run / "splits" / WARNINGS)
    if method.needs.pool:
        names = names_of("pool")
        left = _left(dataset, names, warnings)
        candidates = withhold(left, labelled if config.pool_labels else ())
        if config.skip_bad:
            candidates, damaged = readable_samples(candidates, dataset.coding, skip_bad=True)
            report_skipped(damaged)
        if not candidates:
            raise UserError(
                f"{dataset.root}: no readable image of the pool is left: repair the files or "
                "restore them"
            )
        lost = len(names) - len(candidates)
    needed = config.balanced_crops or (method.needs.pool and reads_class_shares(config))
    areas = _shown(labelled, dataset, config) if needed else None
    return Streams(
        labelled=labelled,
        pool=candidates,
        selection=tuple(map(dataset.sample, names_of("selection"))) if selected else (),
        areas=areas,
        coverage=_coverage(areas, labelled, config, method),
        skipped=tuple(dict.fromkeys((*_lines(run / "splits" / SKIPPED), *damaged))),
        warnings=tuple(warnings),
        lost=lost,
    )


def _left(dataset: Dataset, names: Sequence[str], warnings: list[str]) -> list[Sample]:
    """The images of a recorded pool that are still there; a warning about others is appended."""
    gone = [name for name in names if not dataset.has([name])]
    if gone:
        line = (
            f"Removed since the run began: {len(gone):,} of the {len(names):,} images of the pool "
            f"({listed(gone, 3)}). The run continues with the others."
        )
        logger.warning("%s", line)
        warnings.append(line)
    return [dataset.sample(name) for name in names if dataset.has([name])]


def _lines(path: Path) -> list[str]:
    return read_text(path).splitlines() if path.is_file() else []
