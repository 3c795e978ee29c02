"""One way in for every kind of model: a run, a checkpoint, an ONNX file, a name on the hub."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import Any

from s5mars.models.checkpoint import LoadedModel, load_model

HUB = "hf:"
ONNX = ".onnx"


def open_model(path: str | PathLike[str], *, network: str = "teacher") -> LoadedModel[Any]:
    """Open a model, whatever it is. Nothing is ever unpickled.

    Args:
        path: a run folder; a checkpoint (``.safetensors`` with its JSON beside it); a file that
            ends in ``.onnx``; or ``hf:OWNER/NAME``, with ``@REVISION`` if need be, on the hub.
        network: ``"teacher"`` or ``"student"``.

    Raises:
        MissingFileError: if it is not there, or the hub cannot be reached.
        UserError: if it is damaged or of another format.
    """
    text = os.fspath(path)
    if text.startswith(HUB):
        from s5mars.models.hub import fetch_checkpoint

        return load_model(fetch_checkpoint(text.removeprefix(HUB)), network=network)
    if text.lower().endswith(ONNX):
        from s5mars.models.onnx_network import load_onnx

        return load_onnx(Path(text), network=network)
    return load_model(path, network=network)


def beside(path: str | PathLike[str], name: str) -> Path:
    """Where a file about a model belongs.

    In the run folder, or the folder of the checkpoint; beside an ONNX file with that file's name
    in front, because its scores are not those of the run; for a name on the hub in the working
    folder.

    Args:
        path: see ``open_model``.
        name: of the file.
    """
    text = os.fspath(path)
    if text.startswith(HUB):
        return Path(f"{text.removeprefix(HUB).replace('/', '_')}.{name}")
    at = Path(text)
    if text.lower().endswith(ONNX):
        return at.with_name(f"{at.stem}.{name}")
    return (at if at.is_dir() else at.parent) / name
