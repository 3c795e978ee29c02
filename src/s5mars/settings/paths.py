"""Paths among the settings, made absolute so that a run can be resumed in any directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from s5mars.files.run_folder import TENSORS
from s5mars.settings.config import TrainConfig


def _is_model(text: str) -> bool:
    """Whether a text is a path to a model, and not the name of an installed one."""
    path = Path(text)
    return path.is_file() or (path / TENSORS).is_file() or path.name != text


_MAY_BE_PATHS: Mapping[str, Callable[[str], bool]] = {
    "labelled": lambda text: Path(text).is_file(),
    "pool": lambda text: Path(text).is_file(),
    "weights": lambda text: text not in ("auto", "none") and Path(text).exists(),
    "start_from": lambda text: Path(text).exists() and _is_model(text),
}
"""Options that are a path or something else, and how to know: a folder may have any name."""


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Make paths absolute, except that of the run folder."""
    changed: dict[str, Any] = {}
    for name in ("data", "splits", "objects", "object_cache", "feature_cache", "teacher"):
        if (path := getattr(config, name)) is not None:
            changed[name] = path.absolute()
    for name, is_path in _MAY_BE_PATHS.items():
        value = getattr(config, name)
        if value and isinstance(value, str) and is_path(value):
            changed[name] = str(Path(value).absolute())
    return replace(config, network=config.network.with_absolute_paths(), **changed)
