"""One file for each method. A new one changes its own file, one line here, and a recipe.

A method of another package needs nothing here: the package registers its class in the entry point
group ``s5mars.methods``, or its user passes an object to ``s5mars.train`` (docs/method.md).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from s5mars.errors import UserError, first_line, nearest_first
from s5mars.methods.augseg import AugSeg
from s5mars.methods.classmix import ClassMix
from s5mars.methods.fixmatch import FixMatch
from s5mars.methods.mean_teacher import MeanTeacher
from s5mars.methods.prevmatch import PrevMatch
from s5mars.methods.ranpaste import RanPaste
from s5mars.methods.s5mars import S5Mars
from s5mars.methods.san import San
from s5mars.methods.self_training import SelfTraining
from s5mars.methods.supervised import Supervised
from s5mars.methods.supervised_averaged import SupervisedAveraged
from s5mars.methods.u2pl import U2PL
from s5mars.methods.unimatch import UniMatch
from s5mars.methods.unimatch_v2 import UniMatchV2
from s5mars.settings.config import TrainConfig
from s5mars.settings.keywords import as_option
from s5mars.settings.networks import NETWORKS
from s5mars.types import Method

METHODS: Mapping[str, type[Method]] = {
    "supervised": Supervised,
    "supervised_averaged": SupervisedAveraged,
    "self_training": SelfTraining,
    "mean_teacher": MeanTeacher,
    "classmix": ClassMix,
    "fixmatch": FixMatch,
    "ranpaste": RanPaste,
    "u2pl": U2PL,
    "augseg": AugSeg,
    "unimatch": UniMatch,
    "unimatch_v2": UniMatchV2,
    "prevmatch": PrevMatch,
    "s5mars": S5Mars,
}
"""Methods of table III and later ones, which train any network that returns logits."""

OF_A_NETWORK: Mapping[str, type[Method]] = {"san": San}
"""Methods of table VI that only fit one kind of network."""

_OWN: Mapping[str, type[Method]] = {**METHODS, **OF_A_NETWORK}

GROUP = "s5mars.methods"
"""Entry point group in which other packages register their methods: name → class."""


def registered() -> dict[str, EntryPoint]:
    """Methods that other packages register, by name; none is imported.

    Raises:
        UserError: if a name is taken or cannot be an option; it names the package.
    """
    found = {each.name: each for each in _installed(tuple(sys.path))}
    for name, entry in found.items():
        if reason := _unusable(name):
            raise UserError(f"{_origin(entry)} cannot have the name {name!r}: {reason}; rename it")
    return found


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Entry points of the group on ``sys.path``; the metadata of every package is read once."""
    return tuple(entry_points(group=GROUP))


def method_class(name: str) -> type[Method]:
    """The class of a method, of this package or another one.

    Raises:
        UserError: if the name is unknown (it lists all names, nearest first), or the method
            of another package cannot be imported or lacks a part.
    """
    others = registered()
    known = {**_OWN, **others}
    if name not in known:
        raise UserError(
            f"unknown method {name!r}; nearest first: {', '.join(nearest_first(name, known))}. A "
            f"method of your own is registered in the entry point group {GROUP}, or given to "
            "s5mars.train or s5mars.Run.resume as an object (docs/method.md)"
        )
    if name not in others:
        return _OWN[name]
    entry = others[name]
    try:
        kind = entry.load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"{_origin(entry)} cannot be imported ({first_line(error)})") from error
    check_method(kind)
    return kind  # type: ignore[no-any-return]


def method_title(name: str) -> str:
    """The display name of a method; the name itself if it is unknown."""
    try:
        return title_of(method_class(name), name)
    except UserError:
        return name


def title_of(kind: type[Method], name: str) -> str:
    """The display name of a class; its name follows a title that it has from another method."""
    return kind.title if "title" in vars(kind) else f"{kind.title} ({name})"


def method_name(kind: type[Method]) -> str:
    """The name of a class as ``--method`` takes it: the registered one, or ``MyMethod``'s
    ``my_method``.

    Raises:
        UserError: if the class is not a method, or this name is that of another one.
    """
    check_method(kind)
    for name, known in _OWN.items():
        if kind is known:
            return name
    others = registered()
    for name, entry in others.items():
        if entry.value == f"{kind.__module__}:{kind.__qualname__}":
            return name
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind.__name__).lower()
    reason = _unusable(name) or (_origin(others[name]) if name in others else "")
    if reason:
        raise UserError(
            f"the class {kind.__name__} would be the method {name!r}, but {reason}: give the class "
            "another name"
        )
    return name


def check_method(kind: Any) -> None:
    """Check that a class is a method (``s5mars.types.Method``).

    Raises:
        UserError: if it is not a class or lacks a part; it names the part.
    """
    if not isinstance(kind, type):
        raise UserError(f"a method must be a class (got {kind!r})")
    missing = [
        *([] if is_dataclass(kind) else ["the decorator @dataclass"]),
        *(name for name in ("title", "needs", "losses") if not hasattr(kind, name)),
    ]
    if missing:
        raise UserError(
            f"the class {kind.__name__} is not a method, because it lacks {', '.join(missing)}: "
            "see s5mars.types.Method and docs/method.md"
        )


def _unusable(name: str) -> str:
    """Why a method of another package cannot have this name; "" if it can.

    A name is also the group of the method's options, beside those of a run.
    """
    if name in _OWN:
        return f"s5mars has a method {name!r} itself"
    if name in {field.name for field in fields(TrainConfig)} | {kind.group for kind in NETWORKS}:
        return f"train has an option {as_option(name)}"
    if not name.isidentifier():
        return "a name has letters, digits and underscores"
    return ""


def _origin(entry: EntryPoint) -> str:
    package = f" of the package {entry.dist.name}" if entry.dist else ""
    return f"the method {entry.name!r} ({entry.value}){package}"
