"""What a user can have done wrong, as exceptions; everything else is a fault of the program.

The command line turns a ``UserError`` into one line and exit code 2. Any other exception keeps its
traceback, so that a fault of the program is never taken for a mistake of the user's.
"""

from __future__ import annotations

import importlib
from typing import Any

WAY_OUT = "replace it, or leave it out (train and predict do so with --skip-bad)"
"""What to do about a damaged file; it holds for commands without that option, too."""


class UserError(ValueError):
    """A mistake in an argument, a setting or a file: one line that names it and the way out."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that the user named, or that a file of the user's names, is not there."""


class DamagedFileError(UserError):
    """A file that cannot be decoded or parsed: what ``--skip-bad`` may skip, and only that."""


def first_line(error: BaseException | str) -> str:
    """The first line of an error's message; the name of its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def needed(module: str, *, extra: str) -> Any:
    """Import a module of an extra.

    Args:
        module: such as ``"onnxruntime"``.
        extra: of this package, which installs it.

    Raises:
        UserError: with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{module.partition('.')[0]} is needed for this and not installed "
            f"(`pip install 's5mars[{extra}]'`)"
        ) from error
