"""The public data sets, and the file paths of their columns.

The hub has both as Parquet shards, ``data/SPLIT-00000-of-00004.parquet``, whose image columns are
structs of the ``bytes`` and the ``path`` of a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Row = Mapping[str, object]
Places = Callable[[str, str, Row], dict[str, str]]
"""(split, name, row) → column → relative path without the ending."""


@dataclass(frozen=True)
class Source:
    """One data set on the hub."""

    repo: str
    splits: tuple[str, ...]
    columns: tuple[str, ...]  # image columns; the first is the image itself
    flags: tuple[str, ...]  # boolean columns
    shared_images: bool  # whether splits hold the same images with other labels
    places: Places
    published: str  # URL of the authors


def _mars_bench(split: str, name: str, row: Row) -> dict[str, str]:
    folder = f"data/{split}"
    return {"image": f"{folder}/images/{name}", "mask": f"{folder}/masks/{name}"}


def _ai4mars(split: str, name: str, row: Row) -> dict[str, str]:
    places = {"image": f"images/edr/{name}"}
    if row.get("has_labels") is not False:
        gold = f"labels/test/masked-gold-{split.removeprefix('test_')}-100agree"
        places["label_mask"] = f"{'labels/train' if split == 'train' else gold}/{name}"
    if row.get("has_masks") is not False:
        places["rover_mask"] = f"images/mxy/{name.replace('EDR', 'MXY')}"
        places["range_mask"] = f"images/rng-30m/{name.replace('EDR', 'RNG')}"
    return places


SOURCES: Mapping[str, Source] = {
    "s5mars": Source(
        repo="Mirali33/mb-s5mars",
        splits=("train", "val", "test"),
        columns=("image", "mask"),
        flags=(),
        shared_images=False,
        places=_mars_bench,
        published="https://jhang2020.github.io/S5Mars.github.io/",
    ),
    "ai4mars": Source(
        repo="hassanjbara/AI4MARS",
        splits=("train", "test_min1", "test_min2", "test_min3"),
        columns=("image", "label_mask", "rover_mask", "range_mask"),
        flags=("has_masks", "has_labels"),
        shared_images=True,
        places=_ai4mars,
        published="https://doi.org/10.5281/zenodo.15995036",
    ),
}
