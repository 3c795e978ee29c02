"""Keywords of Python as arguments of the command line, so that the same code checks both."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping
from typing import Any

from s5mars.errors import UserError

_OF_THE_SHELL = {"help", "help_all", "print_config"}


def as_arguments(settings: Mapping[str, Any]) -> list[str]:
    """``{"steps": 6, "deeplab": {"decoder": "light"}}`` as arguments of ``s5mars train``.

    Args:
        settings: option without dashes → value. A mapping holds the options of a group. None means
            that an option is not given.

    Raises:
        UserError: for an option that only prints.
    """
    words: list[str] = []
    for name, value in settings.items():
        if name in _OF_THE_SHELL:
            raise UserError(f"{name} is an option of the command line only: leave it out")
        if isinstance(value, Mapping):
            words += as_arguments({f"{name}.{key}": inner for key, inner in value.items()})
        elif value is not None:
            words.append(f"{as_option(name)}={_text(value)}")
    return words


def as_words(parser: ArgumentParser, settings: Mapping[str, Any]) -> list[str]:
    """Keywords as arguments for an ``argparse`` parser: lists and switches in its own form.

    Options that the parser does not know are written as ``as_arguments`` does.
    """
    known = {option: action for action in parser._actions for option in action.option_strings}
    words: list[str] = []
    for name, value in settings.items():
        if value is None:
            continue
        action = known.get(option := as_option(name))
        if action is not None and action.nargs == 0:
            if not isinstance(value, bool):
                raise UserError(f"{name} must be True or False (got {value!r})")
            words += [option] * value
        elif action is not None and action.nargs == "+":
            words += [option, *(_text(each) for each in _listed(value))]
        else:
            words += as_arguments({name: value})
    return words


def as_option(name: str) -> str:
    """``"save_every"`` → ``"--save-every"``."""
    return f"--{name.replace('_', '-')}"


def _listed(value: Any) -> Iterable[Any]:
    several = isinstance(value, Iterable) and not isinstance(value, str | os.PathLike)
    return value if several else [value]


def _text(value: Any) -> str:
    """As the YAML that the command line reads."""
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if hasattr(value, "tolist"):  # numpy
        value = value.tolist()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_quoted, value))}]"
    return str(value)


def _quoted(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else _text(value)
