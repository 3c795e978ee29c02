"""Cache the features of a frozen encoder on disk, so that each image is encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from s5mars.files import replacing

DTYPE = torch.float16
"""Takes half the space of float32; features are rounded to it with and without a cache."""


class FeatureCache:
    """A folder of features, one file per image; processes may share it.

    Args:
        folder: folder for all encoders.
        encoder: digest of the weights, which identifies the encoder.
    """

    def __init__(self, folder: Path, encoder: str) -> None:
        self.folder = folder / encoder

    def get(self, image: Tensor) -> list[Tensor] | None:
        """The feature maps of an image, (3, H, W) uint8 on the CPU, or None if not cached."""
        try:
            found = load_file(self._path(image))
            return [found[str(level)] for level in range(len(found))]
        except (FileNotFoundError, SafetensorError, KeyError):
            return None  # a damaged file is written again

    def put(self, image: Tensor, features: Sequence[Tensor]) -> None:
        """Store the feature maps of an image; the file is written atomically."""
        maps = {str(level): x.to("cpu", DTYPE).contiguous() for level, x in enumerate(features)}
        with replacing(self._path(image)) as temporary:
            temporary.write_bytes(save(maps))

    def _path(self, image: Tensor) -> Path:
        content = hashlib.sha256(repr(tuple(image.shape)).encode())
        content.update(image.contiguous().numpy().tobytes())
        name = content.hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.safetensors"
