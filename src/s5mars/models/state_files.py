"""Files of tensors: safetensors or pth; pickled code is never run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TypeVar

import torch
from torch import Tensor

from s5mars.errors import DamagedFileError, MissingFileError, UserError, first_line
from s5mars.files.reading import require_regular

T = TypeVar("T")


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors or pth file; pickled code is never run.

    Raises:
        MissingFileError: if the file does not exist.
        UserError: if it has neither format.
    """
    if not path.exists():
        raise MissingFileError(f"weights file {path} does not exist")
    require_regular(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: object = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = first_line(error)
        if isinstance(error, UnpicklingError):
            first = "not a table of tensors"  # torch would explain how to run untrusted code
        raise DamagedFileError(
            f"{path} is not a readable weights file ({first}); give a .safetensors file, or a "
            ".pth file that contains tensors only"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise UserError(f"{path} contains a {type(state).__name__}, not a table of tensors")
    return {str(k): v for k, v in state.items() if isinstance(v, Tensor)}


def below_prefix(state: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The entries whose names start with a prefix, under the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
