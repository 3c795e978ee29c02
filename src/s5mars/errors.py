"""Exceptions for mistakes of the user.

The command line turns a ``UserError`` into one line and exit code 2. Other exceptions are bugs and
keep their traceback.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import math
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

REMEDY = "replace it, or leave it out (train and predict do so with --skip-bad)"
"""What to do about a damaged file; also for commands that do not have the option."""


class UserError(ValueError):
    """A mistake in an argument, a setting or a file, in one line that also says what to do."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that the user or one of the user's files named does not exist."""


class DamagedFileError(UserError):
    """A file that cannot be decoded or parsed; ``--skip-bad`` skips only these files."""


def first_line(error: BaseException | str) -> str:
    """First line of the message of an error, or the name of its type if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def raised_message(message: str) -> str:
    """The message of an error; one from a loader process arrives as its whole traceback."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) < 2 or not lines[0].startswith("Caught "):
        return message
    return lines[-1].partition(": ")[2] or lines[-1]


def did_you_mean(name: str, known: Collection[str]) -> str:
    """``"; did you mean 'rock'?"``, or nothing if no known name is similar."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def nearest_first(name: str, known: Iterable[str]) -> list[str]:
    """All known names, the most similar first; upper and lower case are equal."""

    def similarity(other: str) -> float:
        return difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio()

    return sorted(known, key=similarity, reverse=True)


def listed(names: Sequence[str], most: int = 8) -> str:
    """``"a, b, c"``, or ``"a, b and 5 more"`` if there are more than ``most`` names."""
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left} more" if left > 0 else "")


def require_choice(
    value: str, choices: Collection[str], *, name: str, suggest: bool = False
) -> None:
    """Raise a UserError that lists the choices (and the nearest one) if a value is none of them."""
    if value not in choices:
        hint = did_you_mean(value, choices) if suggest else ""
        raise UserError(f"{name} must be one of {', '.join(choices)} (got {value!r}){hint}")


LIMITS: Mapping[str, Callable[[float], bool]] = {
    "above 0": lambda x: x > 0,
    "at least 0": lambda x: x >= 0,
    "at least -1": lambda x: x >= -1,
    "at least 1": lambda x: x >= 1,
    "at least 32 pixels": lambda x: x >= 32,
    "at most 1": lambda x: x <= 1,
    "in [0, 1]": lambda x: 0 <= x <= 1,
    "in [0, 1)": lambda x: 0 <= x < 1,
    "in (0, 1]": lambda x: 0 < x <= 1,
    "in [0, 100]": lambda x: 0 <= x <= 100,
    "in [0, 4294967295]": lambda x: 0 <= x < 2**32,
}
"""Limits of ``require_limit``, by their words in its message."""


def require_limit(limit: str, **numbers: float) -> None:
    """Raise a UserError if a number is not finite or outside one of the ``LIMITS``."""
    for name, value in numbers.items():
        try:
            finite = math.isfinite(value)
        except OverflowError:  # an integer of hundreds of digits
            finite = False
        if not finite:
            raise UserError(f"{name} must be finite (got {value})")
        if not LIMITS[limit](value):
            raise UserError(f"{name} must be {limit} (got {value})")


def needed(module: str, *, extra: str) -> Any:
    """Import a module, such as ``"onnxruntime"``, that an extra of this package installs.

    Raises:
        UserError: if it is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"the package {module.partition('.')[0]} is not installed: run "
            f"`pip install 's5mars[{extra}]'`"
        ) from error


@cache
def warn_once(line: str) -> None:
    """Log a warning once in a process, which may open a folder several times."""
    logging.getLogger("s5mars").warning(line)


def warn_of_all(lines: Sequence[str], most: int = 20) -> None:
    """Log warnings, the first ones one by one, and then how many more there are."""
    for line in lines[:most]:
        logging.getLogger("s5mars").warning("%s", line)
    if len(lines) > most:
        logging.getLogger("s5mars").warning("and %d more", len(lines) - most)


def as_typed(path: Path | str) -> str:
    """A path as one types it in a shell, quoted where it must be."""
    return shlex.quote(str(path))
