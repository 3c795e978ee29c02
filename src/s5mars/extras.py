"""Packages that only some commands need."""

from __future__ import annotations

import importlib
from typing import Any

from s5mars.errors import UserError


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
