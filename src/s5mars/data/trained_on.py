"""Opens the data set that a model was trained on, wherever it is now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s5mars.data.dataset import Dataset
from s5mars.data.layouts import open_dataset
from s5mars.data.layouts.files import read_names
from s5mars.errors import MissingFileError
from s5mars.files.run_folder import LABELLED


def dataset_of(
    run: Path | str,
    facts: Mapping[str, Any],
    *,
    data: Path | str | None = None,
    splits: Path | None = None,
) -> Dataset:
    """Open the given data set, or the one that a run was trained on, with the lists of the run.

    Args:
        run: The run or model, for messages.
        facts: What it recorded of its training: ``data`` and ``splits``.
        data: Path to the data set, if it is another one or was moved.
        splits: Path to the split lists; by default those of the run if the data set is the same.

    Raises:
        MissingFileError: if data or lists are where neither the caller nor the run says.
        UserError: as ``open_dataset``.
    """
    recorded = facts.get("data")
    if data is None:
        # A path that was recorded on another machine, by a model of the hub, means nothing here.
        if not recorded or not Path(run).exists():
            raise MissingFileError(f"{run} does not name its data: give the folder with --data")
        if not Path(str(recorded)).exists():
            raise MissingFileError(
                f"{run} was trained on {recorded}, which does not exist: give the folder with "
                "--data"
            )
    folder = Path(str(recorded if data is None else data))
    lists = facts.get("splits")
    if splits is None and lists and _may_be(run, folder, Path(str(recorded))):
        splits = Path(str(lists))
        if not splits.is_dir():
            raise MissingFileError(
                f"{run} was trained with the lists in {splits}, which does not exist: give the "
                "folder with --splits"
            )
    return open_dataset(folder, splits=splits)


def is_of_training(
    run: Path | str, facts: Mapping[str, Any], dataset: Dataset, splits: Path | None
) -> bool:
    """Whether data and split lists are those that a model was trained with.

    Data whose recorded folder does not exist may have moved: they are those of the run if they have
    all its labelled images, or, for a model without its run, a folder of the same name.

    Args:
        run: The run or model.
        facts: What it recorded of its training.
        dataset: The data set.
        splits: Path to the split lists that were asked for; None for those of the data or model.
    """
    recorded, lists = facts.get("data"), facts.get("splits")
    if recorded:
        known = Path(str(recorded))
        if not known.exists() and (listed := labelled_list(run)):
            same = dataset.has(listed)
        else:
            same = _same(dataset.root, known)
        if not same:
            return False
    return splits is None or _same(splits, Path(str(lists)) if lists else dataset.root / "splits")


def labelled_list(run: Path | str) -> list[str]:
    """Names of the images whose labels a run was trained on, in the order of its list, if any."""
    listed = Path(run) / LABELLED
    return read_names(listed) if listed.is_file() else []


def labelled_names(run: Path | str, facts: Mapping[str, Any], dataset: Dataset) -> set[str]:
    """Names of the images of a data set whose labels a run was trained on, as far as it tells."""
    same = facts.get("dataset") == dataset.taxonomy.name
    return set(labelled_list(run)) if same else set()


def _may_be(run: Path | str, folder: Path, recorded: Path) -> bool:
    """Whether a folder is the recorded one, or may be, if only its lists can tell."""
    return _same(folder, recorded) or (not recorded.exists() and bool(labelled_list(run)))


def _same(folder: Path, recorded: Path) -> bool:
    """Whether a folder is the recorded one; one that is gone keeps its name where it moves."""
    if not recorded.exists():
        return folder.resolve().name == recorded.name
    return folder.resolve() == recorded.resolve()
