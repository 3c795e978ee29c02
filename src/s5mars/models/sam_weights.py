"""Loads the weights and the image processor of SAM, SAM-HQ and SAM 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s5mars.errors import UserError
from s5mars.models.pretrained import (
    NEEDED,
    PROCESSOR,
    kind_of,
    load_part,
    load_pretrained,
    pretrained_folder,
)

FAMILIES = {
    "sam": "SamModel",
    "sam_hq": "SamHQModel",
    "sam2": "Sam2Model",
    "sam2_video": "Sam2Model",  # the type of SAM 2 checkpoints; only the image part is read
}
"""``model_type`` of a config.json → class of transformers."""


def weights_folder(weights: str) -> Path:
    """Return the local folder of ``weights``, a folder or a hub id, which is downloaded if needed.

    Raises:
        MissingFileError: if the folder does not exist, or the hub cannot be reached or lacks it.
        UserError: if it is a file, or the folder is not a SAM in the layout of transformers.
    """
    return pretrained_folder(weights, FAMILIES)


def family(folder: Path) -> str:
    """Return the ``model_type`` of a folder of weights, a key of ``FAMILIES``.

    Raises:
        UserError: if it has none or another one.
    """
    return kind_of(
        folder, FAMILIES, expected=f"--weights needs {NEEDED.format(processor=PROCESSOR)}"
    )


def load_sam(folder: Path) -> tuple[Any, Any]:
    """Load the model (float32, evaluation mode, CPU) and the image processor of a folder.

    Raises:
        UserError: if transformers is not installed, tensors are missing or do not fit, or the
            processor has another input size.
    """
    name = FAMILIES[family(folder)]
    model = load_pretrained(folder, name)
    processor = load_part(folder, "AutoImageProcessor", name)
    asked, given = model.config.prompt_encoder_config.image_size, input_side(processor)
    if asked != given:
        raise UserError(
            f"{folder}: preprocessor_config.json resizes to {given} pixels, but the model needs "
            f"{asked}: use files from the same source"
        )
    return model, processor


def input_side(processor: Any) -> int:
    """Side in pixels of the square input that a processor creates."""
    size = dict(processor.size)
    return int(size.get("longest_edge") or size["height"])
