"""Open any kind of model: installed, a run, a checkpoint, an ONNX file or one on the hub."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from s5mars.errors import MissingFileError, UserError, as_typed
from s5mars.files import given_path
from s5mars.files.run_folder import CHECKPOINT, CONFIG, FACTS, METRICS, TENSORS
from s5mars.models.box import DEFAULT, installed, installed_folder
from s5mars.models.checkpoint import LoadedModel, load_model
from s5mars.models.facts import is_installed
from s5mars.products.files import PRODUCT_ENDINGS, files_below

HUB = "hf:"
ONNX = ".onnx"
_ENDINGS = (ONNX, ".safetensors")
_OF_A_RUN = (TENSORS, FACTS, CHECKPOINT, METRICS, CONFIG)


def is_model(path: str | PathLike[str]) -> bool:
    """Whether a command-line argument names a model and not images; it may be incomplete.

    That is: a folder with a file of a run, a file or name that ends as checkpoints and ONNX files
    do, ``hf:...``, or the name of an installed model.
    """
    text = os.fspath(path)
    if text.startswith(HUB) or text.lower().endswith(_ENDINGS):
        return True
    return _is_run(Path(text)) or installed_folder(text) is not None


def open_model(path: str | PathLike[str], *, network: str = "teacher") -> LoadedModel[Any]:
    """Open a model of any kind without running code of its files.

    Args:
        path: name of an installed model; a run folder; a checkpoint (``.safetensors`` with its
            JSON file next to it); an ``.onnx`` file; or ``hf:OWNER/NAME``, optionally with
            ``@REVISION``, on the hub.
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
    return load_model(given_path(path), network=network)


def model_and_images(first: str | None, others: Sequence[str]) -> tuple[str, list[str]]:
    """Tell a model from images: ``s5mars predict [MODEL] IMAGES``.

    Args:
        first: the first of several arguments, which is the model if ``is_model`` says so; None if
            there is only one, which must be images.
        others: the other arguments.

    Returns:
        The model (the default one if none was given) and the images.

    Raises:
        MissingFileError: if the first argument is not a model and does not exist.
        UserError: if there is a model but no image, the model is not first, the first argument may
            be a model or images, or no model is given or installed.
    """
    images = [*others] if first is None else [first, *others]
    for each in images:
        given_path(each)
    if first is not None and _is_ambiguous(first):
        raise UserError(
            f"{first} is an installed model and also a folder of images here: give ./{first} for "
            "the folder; for the model, rename the folder or run the command elsewhere"
        )
    if first is not None and is_model(first):
        return first, list(others)
    if len(images) == 1 and _is_model_only(images[0]):
        raise UserError(f"{images[0]} is a model; give images to predict after it")
    if first is not None and (models := [each for each in others if _is_model_only(each)]):
        raise UserError(
            f"{models[0]} is a model, which must come first: s5mars predict {as_typed(models[0])} "
            "IMAGES"
        )
    if first is not None and not Path(first).exists():
        raise MissingFileError(
            f"{first} is neither a model nor an image: it does not exist; `s5mars models` lists "
            "the installed models"
        )
    if DEFAULT not in installed():
        raise UserError(
            f"the model {DEFAULT} is not installed; give a model before the images, such as a run "
            "folder of `s5mars train`"
        )
    return DEFAULT, images


def _is_model_only(path: str) -> bool:
    """Whether an argument is a model; a folder of images may have the name of an installed one."""
    return is_model(path) and (_is_run(Path(path)) or not Path(path).is_dir())


def _is_ambiguous(path: str) -> bool:
    if installed_folder(path) is None or _is_run(Path(path)):
        return False
    return bool(files_below(Path(path), PRODUCT_ENDINGS))


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _OF_A_RUN)


def result_path(path: str | PathLike[str], name: str) -> Path:
    """Path of a file about a model, such as its scores.

    It lies in the run folder or the folder of the checkpoint; next to an ONNX file, prefixed with
    that file's name, because its scores differ from those of the run; for an installed model or
    one on the hub, in the working directory, prefixed with its name.
    """
    text = os.fspath(path)
    if text.startswith(HUB):
        return Path(f"{text.removeprefix(HUB).replace('/', '_')}.{name}")
    at = Path(text)
    if is_installed(at):
        return Path(f"{at.name}.{name}")
    if text.lower().endswith(ONNX):
        return at.with_name(f"{at.stem}.{name}")
    return (at if at.is_dir() else at.parent) / name
