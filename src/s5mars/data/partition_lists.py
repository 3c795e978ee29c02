"""Write lists of labelled partitions: stratified, nested parts of the train split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.data.dataset import Dataset
from s5mars.data.layouts import open_dataset
from s5mars.data.layouts.files import read_names
from s5mars.data.names import as_lines
from s5mars.data.partition import as_fraction, require_masks
from s5mars.data.stratify import Areas, label_areas, prefix_length, stratified_order
from s5mars.errors import UserError, require_limit
from s5mars.files import write_json, write_text
from s5mars.files.reading import read_object, reading

RECORD = "partitions.json"
_REMEDY = "remove it, or choose another --out"


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
    equally good partitions. Further fractions may be added to a folder later.

    Raises:
        UserError: if a fraction is outside (0, 1], or ``out`` contains different lists with these
            names, or lists of another seed, train split or labels, with which these would not be
            nested.
    """
    require_limit("at least 0", **{"--seed": seed})
    fractions = sorted({_checked(fraction) for fraction in labelled})
    if not fractions:
        raise UserError("--labelled must contain at least one fraction, such as 0.2")
    dataset = open_dataset(data, splits=splits)
    train = dataset.split("train")
    require_masks(train)
    areas, _ = label_areas(train, dataset.coding, len(dataset.taxonomy))
    order = stratified_order(areas, seed=seed)
    positions = {f: np.sort(order[: prefix_length(len(train), f)]) for f in fractions}
    names = {f: [train[i].name for i in at] for f, at in positions.items()}
    head = {
        "data": str(dataset.root),
        "layout": dataset.layout,
        "seed": seed,
        "train_images": len(train),
    }
    others = _others(out, head, fractions)
    for entry in others:
        _require_nested(_path(out, entry["labelled"]), names.values())
    out.mkdir(parents=True, exist_ok=True)
    paths = {f: _path(out, f) for f in fractions}
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
    entries = sorted([*others, *map(_entry, partitions)], key=lambda entry: entry["labelled"])
    write_json(out / RECORD, {**head, "partitions": entries})
    _print(dataset, areas, partitions)
    return partitions


def _checked(fraction: float) -> float:
    value = as_fraction(fraction)
    if value is None:
        raise UserError(f"--labelled must contain fractions in (0, 1] (got {fraction!r})")
    return value


def _describe(
    fraction: float, path: Path, at: NDArray[np.int64], areas: Areas, names: Sequence[str]
) -> Partition:
    whole, part = areas.sum(0), areas[at].sum(0)
    shares = {name: float(part[i] / whole[i]) for i, name in enumerate(names) if whole[i]}
    absent = tuple(name for name, share in shares.items() if share == 0)
    return Partition(fraction, path, len(at), shares, absent)


def _others(
    out: Path, head: Mapping[str, object], fractions: Sequence[float]
) -> list[dict[str, Any]]:
    """The recorded entries of ``out`` with other fractions."""
    path = out / RECORD
    if not path.is_file():
        return []
    recorded = read_object(path, remedy=_REMEDY)
    for key in ("layout", "seed", "train_images"):
        if recorded.get(key) != head[key]:
            raise UserError(
                f"{path} has {key} {recorded.get(key)} (got {head[key]}), so these lists would not "
                "be nested in those; choose another --out"
            )
    with reading(path, kind="record", remedy=_REMEDY):
        entries: list[dict[str, Any]] = recorded["partitions"]
        return [entry for entry in entries if float(entry["labelled"]) not in fractions]


def _require_nested(path: Path, lists: Iterable[Sequence[str]]) -> None:
    """Raise if an earlier list was drawn from other images or other labels than these."""
    if not path.is_file():
        return
    earlier = set(read_names(path))
    if not all(earlier <= set(names) or earlier >= set(names) for names in lists):
        raise UserError(
            f"{path} was drawn from other images or labels, so the new lists would not be nested "
            f"with it; {_REMEDY}"
        )


def _path(out: Path, fraction: object) -> Path:
    return out / f"{str(fraction).removesuffix('.0')}.txt"


def _entry(partition: Partition) -> dict[str, Any]:
    return {
        "labelled": partition.fraction,
        "list": partition.path.name,
        "images": partition.images,
        "share_of_area": partition.shares,
        "absent": list(partition.absent),
    }


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
