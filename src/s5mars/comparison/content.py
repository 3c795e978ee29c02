"""Describe the content of the files that a comparison reads, so that a change of it is noticed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from s5mars.comparison.settings import digest
from s5mars.data.dataset import Dataset
from s5mars.files import file_digest
from s5mars.files.run_folder import TENSORS
from s5mars.settings.config import TrainConfig
from s5mars.settings.keywords import as_option

_OPTIONS = ("objects", "weights", "start_from", "teacher")
"""Options that may name a file or folder."""


def describe_content(dataset: Dataset, config: TrainConfig) -> dict[str, str]:
    """Return a digest of the labels and of each file or folder that an option names.

    Labels count by their names and sizes, because those outside the partition must not be opened;
    the others count by their bytes. Images are left out.
    """
    samples = [sample for split in dataset.splits.values() for sample in split]
    found = {
        "labels": digest(
            f"{sample.name} {_size(path)}"
            for sample in samples
            for path in (sample.mask, *sample.hide)
            if path is not None
        )
    }
    for option in _OPTIONS:
        value = getattr(config, option)
        if value and (path := Path(value)).exists():
            found[option] = _of_path(path)
    return found


def content_differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Say whose content differs; what only one of them describes is left out."""
    return [
        "the labels differ" if name == "labels" else f"the content of {as_option(name)} differs"
        for name in old.keys() & new.keys()
        if old[name] != new[name]
    ]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # a broken link, which matters only if its label is used
        return None


def _of_path(path: Path) -> str:
    if path.is_file():
        return digest([file_digest(path)])
    # Scores and reports that are added to a run leave the model as it is.
    model = path / TENSORS
    files = [model] if model.is_file() else _files_below(path)
    return digest(f"{file.relative_to(path).as_posix()} {file_digest(file)}" for file in files)


def _files_below(folder: Path) -> list[Path]:
    return [
        Path(root) / name
        for root, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    ]
