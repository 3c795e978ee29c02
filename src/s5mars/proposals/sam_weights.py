"""SAM's weights: of which family, and the image processor that belongs to them."""

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
    "sam2_video": "Sam2Model",  # how SAM 2 is published; its image part is all that is read
}
"""``model_type`` of a config.json → class of transformers."""


def weights_folder(weights: str) -> Path:
    """The local folder of ``weights``: a folder, or a hub id that is downloaded unless it is here.

    Raises:
        MissingFileError: if there is no such folder, or the hub cannot be reached or lacks it.
        UserError: if it is a file, or the folder is no SAM in transformers' layout.
    """
    return pretrained_folder(weights, FAMILIES)


def family(folder: Path) -> str:
    """The ``model_type`` of a folder of weights, a key of ``FAMILIES``.

    Raises:
        UserError: if it has none, or is of another family.
    """
    return kind_of(folder, FAMILIES, needed=f"--weights needs {NEEDED.format(processor=PROCESSOR)}")


def load_sam(folder: Path) -> tuple[Any, Any]:
    """Model, in float32 and evaluation mode on the CPU, and image processor of a local folder.

    Raises:
        UserError: if transformers is missing (with the way to install it), tensors are missing or
            do not fit, or the processor is of another input size.
    """
    name = FAMILIES[family(folder)]
    model = load_pretrained(folder, name)
    processor = load_part(folder, "AutoImageProcessor", name)
    asked, given = model.config.prompt_encoder_config.image_size, input_side(processor)
    if asked != given:
        raise UserError(
            f"{folder}: its preprocessor_config.json resizes to {given} pixels, the model needs "
            f"{asked}: take both files from the same place"
        )
    return model, processor


def input_side(processor: Any) -> int:
    """Side of the square that a processor makes of an image, pixels."""
    size = dict(processor.size)
    return int(size.get("longest_edge") or size["height"])
