"""Which labels may be read: the labelled partition of the train split, and the pool around it."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s5mars.classes import IGNORE
from s5mars.data.dataset import Dataset
from s5mars.data.layouts import open_dataset
from s5mars.data.layouts.files import read_names, select
from s5mars.data.names import as_lines
from s5mars.data.read import DamagedFileError, read_label
from s5mars.data.stratify import Areas, beginning, label_areas, stratified_order
from s5mars.errors import MissingFileError, UserError
from s5mars.files import write_text
from s5mars.files.reading import read_text, reading
from s5mars.types import Sample

logger = logging.getLogger("s5mars")


def labelled_partition(
    dataset: Dataset, labelled: float | str | Path, *, seed: int = 0, skip_bad: bool = False
) -> tuple[Sample, ...]:
    """The part of the train split whose labels may be read.

    A fraction below 1 reads every label of the train split, only to stratify: partitions are
    made once, by somebody who knows the labels. With a list (``write_partitions`` makes them) no
    label outside it is opened. Either way hand training what ``withhold`` returns, so that it
    cannot open the others.

    Args:
        dataset: needs a split "train".
        labelled: a fraction in (0, 1], or a list file: names (text, JSON, or the CSV of
            Mars-Bench), or whole numbers, which are positions in the train list, from 0.
        seed: chooses among equally good partitions; those of one seed are nested.
        skip_bad: leave out images whose label file is damaged, with a warning that counts them.

    Returns:
        The samples, in the order of the list, or of the train split.

    Raises:
        UserError: if the fraction is outside (0, 1], the list names files that are not in the
            train split, a chosen image has no mask, a label is bad, or no pixel is labelled.
        MissingFileError: if the list is missing.
    """
    chosen, damaged = draw_partition(dataset, labelled, seed=seed, skip_bad=skip_bad)
    if damaged:
        logger.warning("%d label(s) left out; the first: %s", len(damaged), damaged[0])
    return chosen


def draw_partition(
    dataset: Dataset, labelled: float | str | Path, *, seed: int = 0, skip_bad: bool = False
) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """``labelled_partition``, and one line for each damaged label that was left out."""
    train = dataset.split("train")
    fraction = as_fraction(labelled)
    bad: dict[str, str] = {}  # name → reason
    if fraction is None:
        chosen = _listed(dataset, train, Path(str(labelled)))
        _require_masks(chosen)
    else:
        _require_masks(train)
        if fraction < 1:
            chosen, bad = _stratified(dataset, train, fraction, seed, skip_bad)
        else:
            chosen = train
    chosen, others = _with_labelled_pixels(chosen, dataset, str(labelled), skip_bad=skip_bad)
    return chosen, tuple({**bad, **others}.values())


def as_fraction(labelled: float | str | Path) -> float | None:
    """The number in (0, 1] that ``labelled`` stands for, or None if it is a path.

    Raises:
        UserError: if it is a number outside (0, 1].
    """
    try:
        fraction = float(str(labelled))
    except ValueError:
        return None
    if not 0 < fraction <= 1:
        raise UserError(f"labelled is {labelled}: give a fraction in (0, 1] or a list file")
    return fraction


def pool(dataset: Dataset, which: str = "all") -> tuple[Sample, ...]:
    """What a semi-supervised method may look at: every train image, and the unlabelled ones.

    Labelled images are in it too: their unlabelled areas count as unlabelled images. Masks are
    still there; ``withhold`` takes them away.

    Args:
        dataset: with a split "train".
        which: ``all`` of them, those of ``train``, the ``unlabelled`` ones, or a list file.

    Raises:
        UserError: if the list names other images, or there is no unlabelled image.
        MissingFileError: if ``which`` is none of these words and no file.
    """
    everything = (*dataset.split("train"), *dataset.unlabelled)
    if which in ("all", "train", "unlabelled"):
        chosen = {"all": everything, "train": dataset.split("train")}.get(which, dataset.unlabelled)
        if not chosen:
            raise UserError(
                f"{dataset.root}: pool is {which}, but the data set has no unlabelled image: add "
                "some, or give all, train or a list file"
            )
        return chosen
    path = Path(which)
    if not path.is_file():
        raise MissingFileError(
            f"pool is {which!r}, which is no file: give all, train, unlabelled or a list file"
        )
    return select(read_names(path), {sample.name: sample for sample in everything}, path)


def withhold(samples: Iterable[Sample], labelled: Iterable[Sample]) -> tuple[Sample, ...]:
    """The same samples, without the masks of those outside the labelled partition.

    What has no path cannot be opened. ``hide`` stays: the rover and the far distance are known
    without labels.
    """
    names = {sample.name for sample in labelled}
    return tuple(
        sample if sample.name in names else replace(sample, mask=None) for sample in samples
    )


@dataclass(frozen=True)
class Partition:
    """One labelled partition, as ``write_partitions`` reports it."""

    fraction: float
    path: Path
    images: int
    shares: dict[str, float]  # class → share of the train split's area of it that is in here
    absent: tuple[str, ...]  # classes of the train split that are not in here


def write_partitions(
    data: Path, *, labelled: Sequence[float] = (0.2, 0.5), seed: int = 0, out: Path
) -> tuple[Partition, ...]:
    """Write stratified, nested lists of the images whose labels may be used.

    Prints how much of each class is in each partition, and where a class is not.

    Args:
        data: Folder of the data set.
        labelled: Shares of the train split, each in (0, 1].
        seed: Chooses among equally good partitions.
        out: Folder for the lists, one text file a share, such as 0.2.txt, and partitions.json.

    Raises:
        UserError: if a share is outside (0, 1], or ``out`` holds other lists of these names.
    """
    fractions = sorted({_checked(each) for each in labelled})
    if not fractions:
        raise UserError("labelled is empty: give at least one share, such as 0.2")
    dataset = open_dataset(data)
    train = dataset.split("train")
    _require_masks(train)
    areas, _ = label_areas(train, dataset.coding, len(dataset.taxonomy))
    order = stratified_order(areas, seed=seed)
    positions = {each: np.sort(order[: beginning(len(train), each)]) for each in fractions}
    names = {each: [train[i].name for i in at] for each, at in positions.items()}
    out.mkdir(parents=True, exist_ok=True)
    paths = {each: out / f"{each:g}.txt" for each in fractions}
    for fraction, path in paths.items():
        if path.exists() and read_names(path) != names[fraction]:
            raise UserError(f"{path}: another list is there: give another --out or remove it")
    partitions = tuple(
        _describe(fraction, paths[fraction], at, areas, dataset.taxonomy.names)
        for fraction, at in positions.items()
    )
    for fraction, path in paths.items():
        write_text(path, as_lines(names[fraction]))
    write_text(out / "partitions.json", _as_json(dataset, seed, len(train), partitions))
    _print(dataset, areas, partitions)
    return partitions


def _checked(fraction: float) -> float:
    value = as_fraction(fraction)
    if value is None:
        raise UserError(f"labelled is {fraction!r}: give fractions in (0, 1]")
    return value


def _stratified(
    dataset: Dataset, train: tuple[Sample, ...], fraction: float, seed: int, skip_bad: bool
) -> tuple[tuple[Sample, ...], dict[str, str]]:
    areas, bad = label_areas(train, dataset.coding, len(dataset.taxonomy), skip_bad=skip_bad)
    good = np.array([i for i in range(len(train)) if i not in bad], np.int64)
    order = good[stratified_order(areas[good], seed=seed)]
    chosen = np.sort(order[: beginning(len(good), fraction)]) if len(good) else good
    reasons = {train[position].name: reason for position, reason in bad.items()}
    return tuple(train[i] for i in chosen), reasons


def _listed(dataset: Dataset, train: tuple[Sample, ...], path: Path) -> tuple[Sample, ...]:
    names = _names_of_csv(path) if path.suffix.lower() == ".csv" else read_names(path)
    by_name = {sample.name: sample for sample in train}
    if all(name.isdecimal() for name in names) and not all(name in by_name for name in names):
        return _at_positions([int(name) for name in names], train, path)
    elsewhere = {
        sample.name: split
        for split, samples in dataset.splits.items()
        for sample in samples
        if split != "train"
    }
    for name in names:
        if name in elsewhere:
            raise UserError(
                f"{path}: {name} is in the {elsewhere[name]} split: list images of the train "
                "split only"
            )
    return select(names, by_name, path)


def _at_positions(
    positions: Sequence[int], train: tuple[Sample, ...], path: Path
) -> tuple[Sample, ...]:
    beyond = [position for position in positions if position >= len(train)]
    if beyond:
        raise UserError(
            f"{path}: position {beyond[0]} is beyond the train list, which has {len(train)} "
            "images counted from 0: is it a list for other data?"
        )
    if len(set(positions)) < len(positions):
        raise UserError(f"{path}: positions stand twice: remove the second ones")
    return tuple(train[position] for position in positions)


def _names_of_csv(path: Path) -> list[str]:
    with reading(path, kind="list"):
        rows = list(csv.DictReader(read_text(path).splitlines()))
    if not rows or not {"file_id", "split"} <= rows[0].keys():
        raise UserError(f"{path}: a CSV list needs the columns file_id and split, and a row")
    names = [row["file_id"] for row in rows if row["split"] == "train"]
    if not names:
        raise UserError(f"{path}: no row with split `train`")
    return names


def _require_masks(samples: Sequence[Sample]) -> None:
    without = [sample for sample in samples if sample.mask is None]
    if without:
        more = f" (nor have {len(without) - 1} more)" if len(without) > 1 else ""
        raise UserError(
            f"{without[0].image}: in the labelled partition, but has no mask{more}: add it, or "
            "leave the image out of the list"
        )


def _with_labelled_pixels(
    chosen: tuple[Sample, ...], dataset: Dataset, labelled: str, *, skip_bad: bool
) -> tuple[tuple[Sample, ...], dict[str, str]]:
    """The samples, once one of them has shown a labelled pixel: opens no more than needed."""
    bad: dict[str, str] = {}
    for sample in chosen:
        try:
            if (read_label(sample, dataset.coding) != IGNORE).any():
                return tuple(each for each in chosen if each.name not in bad), bad
        except DamagedFileError as error:
            if not skip_bad:
                raise
            bad[sample.name] = str(error)
    raise UserError(
        f"{dataset.root}: no labelled pixel in the partition {labelled} ({len(chosen)} images): "
        "choose a larger fraction or another list"
    )


def _describe(
    fraction: float, path: Path, at: NDArray[np.int64], areas: Areas, names: Sequence[str]
) -> Partition:
    whole, part = areas.sum(0), areas[at].sum(0)
    shares = {name: float(part[i] / whole[i]) for i, name in enumerate(names) if whole[i]}
    absent = tuple(name for name, share in shares.items() if share == 0)
    return Partition(fraction, path, len(at), shares, absent)


def _as_json(dataset: Dataset, seed: int, train: int, partitions: Sequence[Partition]) -> str:
    content: Mapping[str, object] = {
        "data": str(dataset.root),
        "layout": dataset.layout,
        "seed": seed,
        "train_images": train,
        "partitions": [
            {
                "labelled": each.fraction,
                "list": each.path.name,
                "images": each.images,
                "share_of_area": each.shares,
                "absent": list(each.absent),
            }
            for each in partitions
        ],
    }
    return json.dumps(content, indent=2) + "\n"


def _print(dataset: Dataset, areas: Areas, partitions: Sequence[Partition]) -> None:
    names = dataset.taxonomy.names
    width = max(map(len, (*names, "class")))
    heads = "".join(f"{f'{each.fraction:g}':>10}" for each in partitions)
    print(f"{'class':<{width}}{'images':>8}{heads}   share of the class's area in the partition")
    for index, name in enumerate(names):
        images = int((areas[:, index] > 0).sum())
        row = "".join(
            f"{100 * each.shares[name]:>8.1f} %" if name in each.shares else f"{'-':>10}"
            for each in partitions
        )
        print(f"{name:<{width}}{images:>8}{row}")
    for each in partitions:
        print(f"{each.path}: {each.images} of {len(areas)} images")
        if each.absent:
            print(f"  not in it: {', '.join(each.absent)}; {each.images} images are too few")
    nowhere = [name for i, name in enumerate(names) if not areas[:, i].any()]
    if nowhere:
        print(f"no label of the train split shows: {', '.join(nowhere)}")
