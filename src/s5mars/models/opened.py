"""Open any kind of model: a run, a checkpoint, an ONNX file or a model on the hub."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import Any

from s5mars.models.checkpoint import LoadedModel, load_model

HUB = "hf:"
ONNX = ".onnx"


def open_model(path: str | PathLike[str], *, network: str = "teacher") -> LoadedModel[Any]:
    """Open a model of any kind. Nothing is ever unpickled.

    Args:
        path: a run folder; a checkpoint (``.safetensors`` with its JSON file next to it); an
            ``.onnx`` file; or ``hf:OWNER/NAME``, optionally with ``@REVISION``, on the hub.
        network: ``"teacher"`` or ``"student"``.

    Raises:
        MissingFileError: if the model does not exist, or the hub cannot be reached.
        UserError: if the model is damaged or has another format.
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
    """Path of a file about a model, such as its scores.

    It lies in the run folder or the folder of the checkpoint; next to an ONNX file, prefixed with
    that file's name, because its scores differ from those of the run; for a model on the hub, in
    the working directory.

    Args:
        path: see ``open_model``.
        name: name of the file.
    """
    text = os.fspath(path)
    if text.startswith(HUB):
        return Path(f"{text.removeprefix(HUB).replace('/', '_')}.{name}")
    at = Path(text)
    if text.lower().endswith(ONNX):
        return at.with_name(f"{at.stem}.{name}")
    return (at if at.is_dir() else at.parent) / name
