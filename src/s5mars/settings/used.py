"""Options that have an effect only with some methods or options, and are refused with others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from s5mars.errors import UserError, listed
from s5mars.settings.config import TrainConfig
from s5mars.settings.keywords import as_arguments, as_option
from s5mars.settings.recipes import find_recipe
from s5mars.types import Needs

_USERS = {
    "objects": ("objects", "paste objects"),
    "object_cache": ("objects", "paste objects"),
    "pool": ("pool", "use a pool"),
    "pool_labels": ("pool", "use a pool"),
    "alignment": ("pool", "use a pool"),
    "alignment_power": ("pool", "use a pool"),
    "alignment_coverage": ("pool", "use a pool"),
    "thresholds": ("pool", "use a pool"),
    "threshold_momentum": ("pool", "use a pool"),
    "teacher_momentum": ("teacher", "have a moving average"),
    "keep": ("pool", "use a pool"),
}
"""Option → what a method needs that uses it, and what such methods do, in words."""

_PARTNERS: Mapping[str, tuple[str, Any, str]] = {
    "momentum": ("optimiser", "adamw", "choose --optimiser sgd"),
    "alignment_power": ("alignment", 0, "give a momentum, such as --alignment 0.99"),
    "alignment_coverage": ("alignment", 0, "give a momentum, such as --alignment 0.99"),
    "threshold_momentum": ("thresholds", "fixed", "choose flexmatch or freematch"),
}
"""Option → another option, its value with which the first has no effect, and what to do."""

_WITHOUT = {"keep": ("last",)}
"""Option → values that all methods use, besides the default."""


def require_used(config: TrainConfig, needs: Mapping[str, Needs]) -> None:
    """Raise a UserError if an option is given that none of these methods, by their names, uses."""
    left = [set(_unused(config, each)) for each in needs.values()]
    for name in sorted(set.intersection(*left)):
        value = f" {config.keep}" if name == "keep" else ""
        raise UserError(
            f"{as_option(name)}{value} is for methods that {_USERS[name][1]}, not for "
            f"{listed(list(needs))}: leave it out"
        )
    _require_partners(config)
    if config.steps is not None and config.snapshots > config.steps:
        raise UserError(
            f"--snapshots must be at most the number of steps, {config.steps} (got "
            f"{config.snapshots})"
        )


def require_default(config: TrainConfig, names: Sequence[str], other: str) -> None:
    """Check that settings that another option makes ineffective have their default.

    Raises:
        UserError: if one does not; it names ``other``, the other option.
    """
    of_recipe = _defaults(config, names)
    for name in names:
        # A recipe may be for encoders that are trained as well.
        if getattr(config, name) not in (getattr(TrainConfig, name), of_recipe[name]):
            raise UserError(f"{as_option(name)} has no effect with {other}; leave one of them out")


def used_only(config: TrainConfig, needs: Needs) -> TrainConfig:
    """The settings without options that a method does not use."""
    defaults = _defaults(config, _USERS)
    return replace(config, **{name: defaults[name] for name in _unused(config, needs)})


def without_unused(config: TrainConfig, needs: Needs) -> list[str]:
    """Arguments that take back the options that a method does not use."""
    words = []
    defaults = _defaults(config, _USERS)
    for name in _unused(config, needs):
        value = defaults[name]
        words += as_arguments({name: "null" if value is None else value})
    return words


def _defaults(config: TrainConfig, names: Iterable[str]) -> dict[str, Any]:
    """Option → its value where it is not given."""
    of_recipe = find_recipe(config.recipe).training_of(config.method)
    return {name: of_recipe.get(name, getattr(TrainConfig, name)) for name in names}


def _unused(config: TrainConfig, needs: Needs) -> list[str]:
    defaults = _defaults(config, _USERS)
    return [
        name
        for name, (need, _) in _USERS.items()
        if getattr(config, name) not in (defaults[name], *_WITHOUT.get(name, ()))
        and not getattr(needs, need)
    ]


def _require_partners(config: TrainConfig) -> None:
    """Raise a UserError if an option is given that another option leaves without effect."""
    defaults = _defaults(config, _PARTNERS)
    for name, (partner, value, remedy) in _PARTNERS.items():
        if getattr(config, partner) == value and getattr(config, name) != defaults[name]:
            raise UserError(
                f"{as_option(name)} has no effect with {as_option(partner)} {value}: {remedy}, or "
                "leave it out"
            )
