"""Options that only some methods use: they are refused where nothing would use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from s5mars.errors import UserError, listed
from s5mars.settings.config import TrainConfig
from s5mars.settings.keywords import as_arguments, as_option
from s5mars.types import Needs

_USERS = {
    "objects": ("objects", "paste objects"),
    "object_cache": ("objects", "paste objects"),
    "pool": ("pool", "use a pool"),
    "pool_labels": ("pool", "use a pool"),
    "alignment": ("pool", "use a pool"),
    "thresholds": ("pool", "use a pool"),
    "teacher_momentum": ("teacher", "have a moving average"),
    "keep": ("pool", "use a pool"),
}
"""Option → what a method needs that uses it, and what such methods do, in words."""

_WITHOUT = {"keep": ("last",)}
"""Option → values that all methods use, besides the default."""

_DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in fields(TrainConfig) if field.name in _USERS
}


def require_used(config: TrainConfig, needs: Mapping[str, Needs]) -> None:
    """Raise a UserError if an option is given that none of these methods, by their names, uses."""
    left = [set(_unused(config, each)) for each in needs.values()]
    for name in sorted(set.intersection(*left)):
        value = f" {config.keep}" if name == "keep" else ""
        raise UserError(
            f"{as_option(name)}{value} is for methods that {_USERS[name][1]}, not for "
            f"{listed(list(needs))}: leave it out"
        )
    if config.steps is not None and config.snapshots > config.steps:
        raise UserError(
            f"--snapshots must be at most the number of steps, {config.steps} (got "
            f"{config.snapshots})"
        )


def used_only(config: TrainConfig, needs: Needs) -> TrainConfig:
    """The settings without options that a method does not use."""
    return replace(config, **{name: _DEFAULTS[name] for name in _unused(config, needs)})


def without_unused(config: TrainConfig, needs: Needs) -> list[str]:
    """Arguments that take back the options that a method does not use."""
    words = []
    for name in _unused(config, needs):
        value = _DEFAULTS[name]
        words += as_arguments({name: "null" if value is None else value})
    return words


def _unused(config: TrainConfig, needs: Needs) -> list[str]:
    return [
        name
        for name, (need, _) in _USERS.items()
        if getattr(config, name) not in (_DEFAULTS[name], *_WITHOUT.get(name, ()))
        and not getattr(needs, need)
    ]
