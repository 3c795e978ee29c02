"""Chooses the labelled partition: the part of the train split whose labels may be read."""

from __future__ import annotations

import csv
import json
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
from s5mars.data.read import read_label
from s5mars.data.stratify import Areas, label_areas, prefix_length, stratified_order
from s5mars.errors import DamagedFileError, MissingFileError, UserError
from s5mars.files import write_text
from s5mars.files.reading import read_text, reading
from s5mars.types import Sample


def draw_partition(
    dataset: Dataset, labelled: float | str | Path, *, seed: int = 0, skip_bad: bool = False
) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """Choose the part of the train split whose labels may be read.

    A fraction below 1 reads every label of the train split in order to stratify. With a list
    (``write_partitions`` writes them) no label outside it is opened. In both cases, give training
    the samples of ``withhold``, so that it cannot open the other labels.

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
    """Return the number in (0, 1] that ``labelled`` holds, or None if it is a path.

    Raises:
        UserError: if it is a number outside (0, 1].
    """
    try:
        fraction = float(str(labelled))
    except ValueError:
        return None
    if not 0 < fraction <= 1:
        raise UserError(f"labelled must be a fraction in (0, 1] or a list file (got {labelled})")
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
    return select(read_names(path), {sample.name: sample for sample in everything}, path)


def withhold(samples: Iterable[Sample], labelled: Iterable[Sample]) -> tuple[Sample, ...]:
    """Remove the masks of all samples outside the labelled partition, so they cannot be opened.

    ``hide`` stays, because the masks of the rover and of the far distance are not labels.
    """
    names = {sample.name for sample in labelled}
    return tuple(
        sample if sample.name in names else replace(sample, mask=None) for sample in samples
    )


@dataclass(frozen=True)
class Partition:
    """One labelled partition of ``write_partitions``."""

    fraction: float
    path: Path
    images: int
    shares: dict[str, float]  # class → share of its area in the train split
    absent: tuple[str, ...]  # classes of the train split that are not in the partition


def write_partitions(
    data: Path,
    *,
    labelled: Sequence[float] = (0.2, 0.5),
    seed: int = 0,
    out: Path,
    splits: Path | None = None,
) -> tuple[Partition, ...]:
    """Write stratified, nested lists of the images whose labels may be used.

    Prints the share of each class in each partition, and which classes are absent. The folder
    ``out`` gets one list per fraction, such as 0.2.txt, and partitions.json. The seed chooses among
    equally good partitions.

    Raises:
        UserError: if a fraction is outside (0, 1], or ``out`` contains different lists with these
            names.
    """
    fractions = sorted({_checked(fraction) for fraction in labelled})
    if not fractions:
        raise UserError("labelled must contain at least one fraction, such as 0.2")
    dataset = open_dataset(data, splits=splits)
    train = dataset.split("train")
    _require_masks(train)
    areas, _ = label_areas(train, dataset.coding, len(dataset.taxonomy))
    order = stratified_order(areas, seed=seed)
    positions = {f: np.sort(order[: prefix_length(len(train), f)]) for f in fractions}
    names = {f: [train[i].name for i in at] for f, at in positions.items()}
    out.mkdir(parents=True, exist_ok=True)
    paths = {f: out / f"{f:g}.txt" for f in fractions}
    for fraction, path in paths.items():
        if path.exists() and read_names(path) != names[fraction]:
            raise UserError(
                f"{path} exists with other names: choose another --out or remove the file"
            )
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
        raise UserError(f"labelled must contain fractions in (0, 1] (got {fraction!r})")
    return value


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
                f"{path}: {name} is in the {elsewhere[name]} split: list only images of the train "
                "split"
            )
    return select(names, by_name, path)


def _at_positions(
    positions: Sequence[int], train: tuple[Sample, ...], path: Path
) -> tuple[Sample, ...]:
    beyond = [position for position in positions if position >= len(train)]
    if beyond:
        raise UserError(
            f"{path}: positions must be below {len(train)}, the number of train images (got "
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
    if not names:
        raise UserError(f"{path} has no row with the split `train`")
    return names


def _require_masks(samples: Sequence[Sample]) -> None:
    without = [sample for sample in samples if sample.mask is None]
    if without:
        more = f" (and {len(without) - 1} more)" if len(without) > 1 else ""
        raise UserError(
            f"{without[0].image}{more} is in the labelled partition but has no mask: add the mask, "
            "or remove the image from the list"
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
    raise UserError(
        f"{dataset.root}: the partition {labelled} ({len(chosen)} images) has no labelled pixel: "
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
    print(f"{'class':<{width}}{'images':>8}{heads}   share of the class area in the partition")
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
            print(f"  absent classes: {', '.join(each.absent)}; use a larger fraction")
    nowhere = [name for i, name in enumerate(names) if not areas[:, i].any()]
    if nowhere:
        print(f"classes without a label in the train split: {', '.join(nowhere)}")
