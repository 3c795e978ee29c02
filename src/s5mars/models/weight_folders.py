"""Folders of encoder weights: from a disk or the hub, in timm's or in transformers' layout."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from s5mars.errors import MissingFileError, UserError
from s5mars.files.reading import object_in, reading
from s5mars.models.foreign_layouts import KINDS
from s5mars.models.state_files import read_state

ENCODER_FILES = ("config.json", "*.safetensors")
"""Files of a repository on the hub that are weights of an encoder."""


def copy_instructions(repository: str) -> str:
    """Instructions for a machine that cannot reach the hub."""
    return (
        f"where the hub can be reached, copy config.json and model.safetensors of {repository} "
        "into a folder, bring it here, and give the folder with --weights"
    )


def folder_state(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder of weights.

    Raises:
        MissingFileError: if it contains no weights.
        UserError: if they are of a kind of transformers whose names are not known, or damaged.
    """
    config = folder / "config.json"
    if config.is_file():
        with reading(config, remedy="copy it again"):
            kind = object_in(config).get("model_type")
        if kind is not None and kind not in KINDS:
            raise UserError(
                f"{folder} contains weights of {kind!r} in transformers' layout; supported are "
                f"{', '.join(KINDS)} and all weights in timm's layout"
            )
    files = sorted(folder.glob("*.safetensors"))
    if not files:  # several formats of the same weights may lie side by side
        files = sorted(path for end in ("pth", "pt", "bin") for path in folder.glob(f"*.{end}"))[:1]
    if not files:
        raise MissingFileError(
            f"{folder} contains no *.safetensors, *.pth, *.pt or *.bin; --weights needs a folder "
            "of weights in timm's or transformers' layout"
        )
    state: dict[str, Tensor] = {}
    for path in files:
        state |= read_state(path)
    return state
