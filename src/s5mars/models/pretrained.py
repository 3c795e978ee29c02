"""Weights in transformers' layout, from a local folder or a hub id, identified by a digest.

Only safetensors are read: untrusted files never reach pickle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from s5mars.errors import MissingFileError, UserError, first_line, needed
from s5mars.files.reading import object_in, reading
from s5mars.models.hub import hub_folder, is_hub_id

NEEDED = "a folder with config.json, {processor}*.safetensors, or a hub id"
PROCESSOR = "preprocessor_config.json and "

_SAMPLE = 1 << 20


def pretrained_folder(
    weights: str,
    kinds: Collection[str],
    *,
    processor: bool = True,
    option: str = "--weights",
    patterns: Collection[str] = ("*.json", "*.safetensors"),
) -> Path:
    """The local folder of ``weights``, after downloading a hub id if necessary.

    Args:
        kinds: accepted values of ``model_type``.
        processor: whether the network's image processor is needed as well.
        option: command-line option of ``weights``, for error messages.
        patterns: files to download from the hub.

    Raises:
        MissingFileError: if there is no such folder, and it cannot be downloaded from the hub.
        UserError: if it is a file, or the folder contains another kind of model.
    """
    expected = f"{option} needs {NEEDED.format(processor=PROCESSOR if processor else 'and ')}"
    folder = Path(weights)
    if folder.is_file():
        raise UserError(f"{weights} is a file; {expected}")
    if not folder.is_dir():
        if not is_hub_id(weights):
            raise MissingFileError(f"{weights}: no such folder; {expected}")
        # transformers is optional: report that it is missing before a download.
        needed("transformers", extra="sam")
        remedy = f"check name and network, or give {option} a local folder"
        folder = hub_folder(weights, patterns, remedy=remedy)
    kind_of(folder, kinds, expected=expected)
    if not tensor_files(folder):
        raise UserError(f"{weights} contains no *.safetensors; {expected}")
    return folder


def kind_of(folder: Path, kinds: Collection[str], *, expected: str) -> str:
    """The ``model_type`` of a folder of weights.

    Raises:
        UserError: if it has none, or it is not among ``kinds``.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise MissingFileError(f"{folder} contains no config.json with a model_type; {expected}")
    with reading(path, remedy=expected):
        kind = str(object_in(path)["model_type"])
    if kind not in kinds:
        raise UserError(f"{folder} contains weights of {kind!r}; supported are {', '.join(kinds)}")
    return kind


def digest(folder: Path) -> str:
    """Digest of a folder of weights: its config, and samples of its tensors."""
    found = hashlib.sha256((folder / "config.json").read_bytes())
    for path in tensor_files(folder):
        size = path.stat().st_size
        found.update(str(size).encode())
        with path.open("rb") as file:
            for start in (0, size // 2, max(0, size - _SAMPLE)):
                file.seek(start)
                found.update(file.read(_SAMPLE))
    return found.hexdigest()[:16]


def load_pretrained(folder: Path, name: str) -> Any:
    """Load a model of transformers, such as ``SamModel``, in float32, frozen, on the CPU.

    Raises:
        UserError: if transformers is not installed, or tensors are missing or do not fit.
    """
    with _loading(folder, name) as transformers:
        if not hasattr(transformers, name):
            raise UserError(f"transformers {transformers.__version__} has no {name}; upgrade it")
        model, report = getattr(transformers, name).from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    lost = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if lost:
        raise UserError(
            f"{folder} does not fit {name}: {len(lost)} tensors are missing or have another shape "
            f"(first: {lost[0]})"
        )
    return model.eval().requires_grad_(False)


def load_part(folder: Path, auto: str, name: str) -> Any:
    """Load a tokenizer or a processor of the model ``name`` with a class such as ``AutoTokenizer``.

    Raises:
        UserError: if transformers is not installed, or the files are missing or damaged.
    """
    with _loading(folder, name) as transformers:
        return getattr(transformers, auto).from_pretrained(folder, local_files_only=True)


def tensor_files(folder: Path) -> list[Path]:
    """The safetensors of a folder."""
    return sorted(folder.glob("*.safetensors"))


@contextmanager
def _loading(folder: Path, name: str) -> Iterator[Any]:
    """Yield transformers, without its progress bars and tables of tensors, which are checked here.

    Its exceptions become UserErrors that name the folder.
    """
    transformers = needed("transformers", extra="sam")
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    except UserError:
        raise
    except Exception as error:  # many types, all caused by a file
        raise UserError(f"{folder} cannot be loaded as {name} ({first_line(error)})") from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
