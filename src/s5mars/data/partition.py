"""Chooses the labelled partition: the part of the train split whose labels may be read."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from s5mars.classes import IGNORE
from s5mars.data.dataset import Dataset
from s5mars.data.layouts.files import read_names, select, unknown_names
from s5mars.data.read import read_label
from s5mars.data.stratify import label_areas, prefix_length, stratified_order
from s5mars.errors import DamagedFileError, MissingFileError, UserError
from s5mars.files.reading import read_text, reading
from s5mars.types import Sample


def draw_partition(
    dataset: Dataset, labelled: float | str | Path, *, seed: int = 0, skip_bad: bool = False
) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """Choose the part of the train split whose labels may be read.

    A fraction below 1 reads every label of the train split in order to stratify. With a list
    (``partition_lists.write_partitions`` writes them) no label outside it is opened. In both cases,
    give training the samples of ``withhold``, so that it cannot open the other labels.

    Args:
        labelled: Fraction in (0, 1], or path to a list: names (text, JSON, or the CSV of
            Mars-Bench), or integers, which are positions in the train list, from 0.
        seed: Chooses among equally good partitions; partitions of one seed are nested.
        skip_bad: Leave out images whose label file is damaged.

    Returns:
        The samples, in the order of the list or of the train split, and one line for each damaged
        label that was left out.

    Raises:
        UserError: if the fraction is outside (0, 1], the list names files that are not in the
            train split, a chosen image has no mask, a label is bad, or no pixel is labelled.
        MissingFileError: if the list does not exist.
    """
    train = dataset.split("train")
    fraction = as_fraction(labelled)
    bad: dict[str, str] = {}  # name → reason
    if fraction is None:
        chosen = _listed(dataset, train, partition_list(dataset, labelled))
        require_masks(chosen)
    else:
        require_masks(train)
        if fraction < 1:
            chosen, bad = _stratified(dataset, train, fraction, seed, skip_bad)
        else:
            chosen = train
    chosen, others = _with_labelled_pixels(chosen, dataset, str(labelled), skip_bad=skip_bad)
    return chosen, tuple({**bad, **others}.values())


def as_fraction(labelled: float | str | Path) -> float | None:
    """Return the number in (0, 1] that ``labelled`` holds, or None if it is a path.

    Raises:
        UserError: if it is a number outside (0, 1].
    """
    if not str(labelled).strip() or labelled == Path():
        raise UserError("--labelled must be a fraction in (0, 1] or a list file (got nothing)")
    try:
        fraction = float(str(labelled))
    except ValueError:
        return None
    if not 0 < fraction <= 1:
        raise UserError(f"--labelled must be a fraction in (0, 1] or a list file (got {labelled})")
    return fraction


def partition_list(dataset: Dataset, labelled: float | str | Path) -> Path:
    """Return the list file of a partition: one that the data set names, or the path itself.

    Raises:
        MissingFileError: if the data set names partitions, and it is neither.
    """
    path = dataset.partitions.get(str(labelled), Path(str(labelled)))
    if not path.exists():
        named = f", or one of {', '.join(dataset.partitions)}" if dataset.partitions else ""
        raise MissingFileError(
            f"--labelled must be a fraction such as 0.125 or an existing list file{named} "
            f"(got {labelled})"
        )
    return path


POOLS = ("all", "train", "unlabelled")
"""What ``pool`` takes besides the path to a list file."""


def pool(dataset: Dataset, which: str = "all") -> tuple[Sample, ...]:
    """Return the images that a semi-supervised method may use without their labels.

    By default these are all train images, labelled ones too, because their unlabelled areas count
    as unlabelled images, and the images without a split. The samples keep their masks; ``withhold``
    removes them.

    Args:
        which: ``all`` of these images, only those of ``train``, only the ``unlabelled`` images
            without a split, or the path to a list file.

    Raises:
        UserError: if the list names other images, or there are no unlabelled images.
        MissingFileError: if ``which`` is none of these words and not a file.
    """
    everything = (*dataset.split("train"), *dataset.unlabelled)
    if which in POOLS:
        chosen = {"all": everything, "train": dataset.split("train")}.get(which, dataset.unlabelled)
        if not chosen:
            raise UserError(
                f"{dataset.root} has no unlabelled image for --pool {which}: add some, or use all, "
                "train or a list file"
            )
        return chosen
    path = Path(which)
    if not path.is_file():
        raise MissingFileError(
            f"--pool must be all, train, unlabelled or an existing list file (got {which!r})"
        )
    names, by_name = read_names(path), {sample.name: sample for sample in everything}
    _refuse_other_splits(
        names, dataset, by_name, path, allowed="images of the train split and unlabelled ones"
    )
    return select(names, by_name, path)


def withhold(samples: Iterable[Sample], labelled: Iterable[Sample]) -> tuple[Sample, ...]:
    """Remove the masks of all samples outside the labelled partition, so they cannot be opened.

    ``hide`` stays, because the masks of the rover and of the far distance are not labels.
    """
    names = {sample.name for sample in labelled}
    return tuple(
        sample if sample.name in names else replace(sample, mask=None) for sample in samples
    )


def _stratified(
    dataset: Dataset, train: tuple[Sample, ...], fraction: float, seed: int, skip_bad: bool
) -> tuple[tuple[Sample, ...], dict[str, str]]:
    areas, bad = label_areas(train, dataset.coding, len(dataset.taxonomy), skip_bad=skip_bad)
    good = np.array([i for i in range(len(train)) if i not in bad], np.int64)
    order = good[stratified_order(areas[good], seed=seed)]
    chosen = np.sort(order[: prefix_length(len(good), fraction)]) if len(good) else good
    reasons = {train[position].name: reason for position, reason in bad.items()}
    return tuple(train[i] for i in chosen), reasons


def _listed(dataset: Dataset, train: tuple[Sample, ...], path: Path) -> tuple[Sample, ...]:
    names = _names_of_csv(path) if path.suffix.lower() == ".csv" else read_names(path)
    by_name = {sample.name: sample for sample in train}
    splits = (dataset.unlabelled, dataset.unlisted, *dataset.splits.values())
    known = {sample.name for samples in splits for sample in samples}
    if all(name.isdecimal() for name in names) and known.isdisjoint(names):
        return _at_positions([int(name) for name in names], train, path)
    _refuse_other_splits(names, dataset, by_name, path, allowed="images of the train split")
    return select(names, by_name, path)


def _refuse_other_splits(
    names: Sequence[str],
    dataset: Dataset,
    allowed_of: Mapping[str, Sample],
    path: Path,
    *,
    allowed: str,
) -> None:
    """Raise a UserError that names the split of the first image that must not be in a list."""
    elsewhere: dict[str, str] = {}
    others: dict[str, Sample] = {}
    for split, samples in dataset.splits.items():
        if split != "train":
            elsewhere |= dict.fromkeys((sample.name for sample in samples), split)
            others |= {sample.name: sample for sample in samples}
    unknown = unknown_names(names, allowed_of)
    nowhere = set(unknown_names(unknown, others))
    wrong = [name for name in names if name in elsewhere and name not in allowed_of]
    wrong += [name for name in unknown if name not in nowhere]
    if wrong:
        (found,) = select(wrong[:1], others, path)
        raise UserError(
            f"{path}: {wrong[0]} is in the {elsewhere[found.name]} split: list only {allowed}"
        )


def _at_positions(
    positions: Sequence[int], train: tuple[Sample, ...], path: Path
) -> tuple[Sample, ...]:
    beyond = [position for position in positions if position >= len(train)]
    if beyond:
        raise UserError(
            f"{path}: positions must be below {len(train):,}, the number of train images (got "
            f"{beyond[0]}): check that the list belongs to this data set"
        )
    if len(set(positions)) < len(positions):
        raise UserError(f"{path} contains duplicate positions: remove them")
    return tuple(train[position] for position in positions)


def _names_of_csv(path: Path) -> list[str]:
    with reading(path, kind="list"):
        rows = list(csv.DictReader(read_text(path).splitlines()))
    if not rows or not {"file_id", "split"} <= rows[0].keys():
        raise UserError(
            f"{path}: a CSV list must have the columns file_id and split, and at least one row"
        )
    names = [row["file_id"] for row in rows if row["split"] == "train"]
    if not all(names):
        raise UserError(f"{path}: a row with the split `train` has no file_id: add it")
    if not names:
        raise UserError(
            f"{path} has no row with the split `train`: give a list with rows of the train split"
        )
    return names


def require_masks(samples: Sequence[Sample]) -> None:
    """Raise a UserError that names the first of these samples without a mask."""
    without = [sample for sample in samples if sample.mask is None]
    if len(without) == 1:
        raise UserError(
            f"{without[0].image} is in the labelled partition but has no mask: add the mask, or "
            "remove the image from the list"
        )
    if without:
        raise UserError(
            f"{len(without):,} images of the labelled partition have no mask, such as "
            f"{without[0].image}: add the masks, or remove the images from the list"
        )


def _with_labelled_pixels(
    chosen: tuple[Sample, ...], dataset: Dataset, labelled: str, *, skip_bad: bool
) -> tuple[tuple[Sample, ...], dict[str, str]]:
    """Check that a sample has a labelled pixel; opens labels only until one is found."""
    bad: dict[str, str] = {}
    for sample in chosen:
        try:
            if (read_label(sample, dataset.coding) != IGNORE).any():
                return tuple(each for each in chosen if each.name not in bad), bad
        except DamagedFileError as error:
            if not skip_bad:
                raise
            bad[sample.name] = str(error)
    if as_fraction(labelled) == 1:
        raise UserError(
            f"{dataset.root}: no mask of the {len(chosen):,} train images has a labelled pixel: "
            "label some, or correct `ids` and `ignore` in dataset.yaml"
        )
    raise UserError(
        f"{dataset.root}: the partition {labelled} ({len(chosen):,} images) has no labelled pixel: "
        "choose a larger fraction or another list"
    )
