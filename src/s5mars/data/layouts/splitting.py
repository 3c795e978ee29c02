"""The split lists of a folder: read, created where there are none, extended by new masks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from s5mars.classes import MaskCoding, Taxonomy
from s5mars.data.dataset import way_to_score
from s5mars.data.layouts.files import forbid_overlap, left_out, read_names, select
from s5mars.data.names import as_lines
from s5mars.data.stratify import Areas, label_areas, prefix_length, stratified_order
from s5mars.errors import UserError, as_typed, warn_once
from s5mars.files import visible, write_text
from s5mars.files.reading import read_text
from s5mars.text.numbers import plural
from s5mars.types import Sample

FEW = 40
"""Below this number of labelled images none is set aside: val and test would show too few pixels of
most classes to choose or score anything, and the labels are worth more in training."""

SHARES = {"train": 0.7, "test": 0.2}  # the rest is "val"

_MARK = "# Written by s5mars"
GROWS = (
    f"{_MARK}, which adds images with new masks to train.txt. Remove this line from train.txt to "
    "keep the lists as they are.\n"
)
"""First line of lists that grow by new masks; other lists are the user's."""


def read_splits(
    root: Path,
    samples: Mapping[str, Sample],
    taxonomy: Taxonomy,
    coding: MaskCoding,
    *,
    lists: Path | None = None,
) -> dict[str, tuple[Sample, ...]]:
    """Read the split lists; without any, create them or train on all of the few labels.

    Lists that s5mars has created are extended by images with new masks, which join the train split.
    ``samples`` are all images that a list may name; the lists are in ``root/splits`` by default.

    Raises:
        UserError: if a list names unknown files, an image is in two lists, no image has a mask, or
            the lists cannot be created.
    """
    folder = root / "splits" if lists is None else lists
    if lists is not None and lists.exists() and not lists.is_dir():
        raise UserError(f"--splits {lists} is a file: give the folder of the split lists")
    if lists is not None and not lists.exists() and visible(root / "splits", "*.txt"):
        raise UserError(
            f"--splits {lists} does not exist, but {root / 'splits'} has lists: leave --splits out "
            "to use them, or make the empty folder for new ones"
        )
    paths = sorted(visible(folder, "*.txt"), key=_usual_order)
    if not paths:
        return _first_splits(root, samples, taxonomy, coding, folder=folder)
    splits = {path.stem: select(read_names(path), samples, path) for path in paths}
    forbid_overlap(splits, folder)
    if new := left_out(samples, splits)[1]:
        splits = _with_new(folder, splits, new)
    return splits


def write_lists(folder: Path, lists: Mapping[str, Sequence[str]], *, first_line: str) -> None:
    """Write lists (split → names) that are read as they are, all of them or none.

    ``first_line`` says what the lists are, as a phrase after "Written by s5mars".
    """
    _write(folder, lists, head=f"{_MARK} {first_line}\n")


def _first_splits(
    root: Path,
    samples: Mapping[str, Sample],
    taxonomy: Taxonomy,
    coding: MaskCoding,
    *,
    folder: Path,
) -> dict[str, tuple[Sample, ...]]:
    labelled = [sample for sample in samples.values() if sample.mask is not None]
    if not labelled:
        raise UserError(
            f"{root} has no mask: add the mask of at least one image, or paint one with "
            f"`s5mars label {as_typed(root)}`"
        )
    if (number := len(labelled)) < FEW:
        warn_once(
            f"{root}: {plural(number, 'labelled image')} and no split lists, so all labels are "
            f"used for training, and val and test are empty; {way_to_score(number)}"
        )
        return {"train": tuple(labelled)}
    areas = _areas(labelled, taxonomy, coding)
    names = _stratified(labelled, areas)
    try:
        _write(folder, names, head=GROWS)
    except OSError as error:
        raise UserError(
            f"{root} has no split lists, and they cannot be written to {folder} "
            f"({error.strerror}): name another folder for them with --splits"
        ) from None
    sizes = ", ".join(f"{split} {len(listed):,}" for split, listed in names.items())
    warn_once(
        f"{folder}: stratified split lists were created ({sizes}). If frames of one place must "
        "stay in one split, edit the lists before training."
    )
    seen: NDArray[np.bool_] = np.greater(areas, 0)
    row = {sample.name: position for position, sample in enumerate(labelled)}
    for split in ("val", "test"):
        shown = seen[np.array([row[name] for name in names[split]], int)].any(0)
        absent = [n for i, n in enumerate(taxonomy.names) if seen[:, i].any() and not shown[i]]
        if absent:
            warn_once(f"{folder / split}.txt contains no pixel of {', '.join(absent)}")
    paths = {split: folder / f"{split}.txt" for split in names}
    return {split: select(read_names(path), samples, path) for split, path in paths.items()}


def _with_new(
    folder: Path,
    splits: dict[str, tuple[Sample, ...]],
    new: tuple[Sample, ...],
) -> dict[str, tuple[Sample, ...]]:
    """Add images with new masks to the train list if s5mars wrote the lists; else count them."""
    path = folder / "train.txt"
    head = _head(path)
    if head != GROWS and head.startswith(_MARK):
        return splits  # such as the lists of a fold, which leave out images on purpose
    if head != GROWS:
        warn_once(
            f"{folder}: the lists leave out {plural(len(new), 'labelled image')}, such as "
            f"{new[0].name}; images outside the lists are not used"
        )
        return splits
    splits = {**splits, "train": (*splits["train"], *new)}
    added = plural(len(new), "image with a new mask was", "images with new masks were")
    done = f"{added} added to {path}, such as {new[0].name}"
    try:
        write_text(path, GROWS + as_lines(sample.name for sample in splits["train"]))
    except OSError as error:
        done += f" (in this run only, because the file cannot be written: {error.strerror})"
    warn_once(done)
    return splits


def _areas(labelled: Sequence[Sample], taxonomy: Taxonomy, coding: MaskCoding) -> Areas:
    # A damaged mask counts as unlabelled; code that needs it later raises or skips.
    return label_areas(labelled, coding, len(taxonomy), skip_bad=True)[0]


def _stratified(labelled: Sequence[Sample], areas: Areas) -> dict[str, list[str]]:
    """Split at least three images 70 / 10 / 20 by label distribution.

    The lists do not depend on the machine or the time. Neighbouring frames of one place may be in
    different splits, which only the user can prevent.
    """
    order = stratified_order(areas, seed=0)
    trained = min(prefix_length(len(labelled), SHARES["train"]), len(labelled) - 2)
    train, rest = order[:trained], order[trained:]
    # Again, so that val and test are stratified too.
    rest = rest[stratified_order(areas[rest], seed=0)]
    tested = min(prefix_length(len(labelled), SHARES["test"]), len(rest) - 1)
    positions = {"train": train, "val": rest[tested:], "test": rest[:tested]}
    return {split: [labelled[i].name for i in sorted(at)] for split, at in positions.items()}


def _usual_order(path: Path) -> tuple[int, str]:
    usual = ("train", "val", "test")
    return (usual.index(path.stem) if path.stem in usual else len(usual), path.stem)


def _head(path: Path) -> str:
    """The first line of a list; empty if there is no such list."""
    if not path.is_file():
        return ""
    return read_text(path, kind="list").partition("\n")[0].rstrip("\r") + "\n"


def _write(folder: Path, names: Mapping[str, Sequence[str]], *, head: str) -> None:
    def write(into: Path) -> None:
        for split, listed in names.items():
            write_text(into / f"{split}.txt", head + as_lines(listed))

    folder = Path(os.path.realpath(folder))  # a link cannot be replaced by a folder
    if folder.is_dir() and any(folder.iterdir()):
        write(folder)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=".splits-", dir=folder.parent) as beside:
            complete = Path(beside) / "splits"
            write(complete)
            complete.replace(folder)
    except OSError:
        # Another process of the same run may have written the same lists.
        if all((folder / f"{split}.txt").is_file() for split in names):
            return
        if not folder.is_dir():
            raise
        write(folder)  # one that cannot be replaced, such as a mounted volume
