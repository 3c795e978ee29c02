"""SAM's weights: from a folder or a hub, of which family, and told apart by a digest.

Only safetensors are read: a file from a stranger never reaches pickle.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

FAMILIES = {
    "sam": "SamModel",
    "sam_hq": "SamHQModel",
    "sam2": "Sam2Model",
    "sam2_video": "Sam2Model",  # how SAM 2 is published; its image part is all that is read
}
"""``model_type`` of a config.json → class of transformers."""

INSTALL = "SAM needs the package transformers: `pip install 's5mars[sam]'`"
NEEDED = "a folder with config.json, preprocessor_config.json and *.safetensors, or a hub id"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SAMPLE = 1 << 20


def weights_folder(weights: str) -> Path:
    """The local folder of ``weights``: a folder, or a hub id that is downloaded unless it is here.

    Raises:
        FileNotFoundError: if there is no such folder, or the hub cannot be reached or lacks it.
        ValueError: if it is a file, or the folder is no SAM in transformers' layout.
    """
    folder = Path(weights)
    if folder.is_file():
        raise ValueError(f"{weights}: a file; --weights needs {NEEDED}")
    if not folder.is_dir():
        folder = _from_hub(weights)
    family(folder)
    if not _tensor_files(folder):
        raise ValueError(f"{weights}: no *.safetensors in it; --weights needs {NEEDED}")
    return folder


def family(folder: Path) -> str:
    """The ``model_type`` of a folder of weights, a key of ``FAMILIES``.

    Raises:
        ValueError: if it has none, or is of another family.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = str(config["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder}: no readable config.json with a model_type; --weights needs {NEEDED}"
        ) from error
    if kind not in FAMILIES:
        raise ValueError(f"{folder}: weights of {kind!r}; can use those of {', '.join(FAMILIES)}")
    return kind


def digest(folder: Path) -> str:
    """What tells two folders of weights apart: their config, and samples of their tensors."""
    found = hashlib.sha256((folder / "config.json").read_bytes())
    for path in _tensor_files(folder):
        size = path.stat().st_size
        found.update(str(size).encode())
        with path.open("rb") as file:
            for start in (0, size // 2, max(0, size - _SAMPLE)):
                file.seek(start)
                found.update(file.read(_SAMPLE))
    return found.hexdigest()[:16]


def load_sam(folder: Path) -> tuple[Any, Any]:
    """Model, in float32 and evaluation mode on the CPU, and image processor of a local folder.

    Raises:
        ValueError: if transformers is missing (with the way to install it), tensors are missing or
            do not fit, or the processor is of another input size.
    """
    transformers = import_transformers()
    name = FAMILIES[family(folder)]
    if not hasattr(transformers, name):
        raise ValueError(f"transformers {transformers.__version__} has no {name}: upgrade it")
    with _quiet(transformers):
        try:
            model, report = getattr(transformers, name).from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
            processor = transformers.AutoImageProcessor.from_pretrained(
                folder, local_files_only=True
            )
        except Exception as error:  # safetensors, OSError, ValueError, RuntimeError: all of a file
            raise ValueError(
                f"{folder}: cannot be loaded as {name} ({first_line(error)})"
            ) from error
    lost = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if lost:
        raise ValueError(
            f"{folder}: does not fill {name}: {len(lost)} tensors missing or of another shape "
            f"(first: {lost[0]})"
        )
    asked, given = model.config.prompt_encoder_config.image_size, input_side(processor)
    if asked != given:
        raise ValueError(
            f"{folder}: its preprocessor_config.json resizes to {given} pixels, the model needs "
            f"{asked}: take both files from the same place"
        )
    return model.eval().requires_grad_(False), processor


def input_side(processor: Any) -> int:
    """Side of the square that a processor makes of an image, pixels."""
    size = dict(processor.size)
    return int(size.get("longest_edge") or size["height"])


def import_transformers() -> Any:
    """The package transformers; ValueError with the way to install it where it is missing."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ValueError(INSTALL) from error
    return transformers


def first_line(error: BaseException) -> str:
    """The first line of an error, which is all of it that helps a user."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _from_hub(weights: str) -> Path:
    if not _HUB_ID.fullmatch(weights):
        raise FileNotFoundError(f"{weights}: no such folder; --weights needs {NEEDED}")
    # Of hub and transformers only the first is always installed; say so before a download.
    import_transformers()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(weights, allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, HfHubHTTPError) as error:
        raise FileNotFoundError(
            f"{weights}: no such folder, and not to be had from the hub ({first_line(error)}): "
            "check the name and the network, or give --weights a local folder"
        ) from error


def _tensor_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without transformers' progress bars and its tables of tensors: what they say is checked."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
