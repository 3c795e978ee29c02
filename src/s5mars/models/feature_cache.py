"""Features of a frozen encoder on disk, so that no image goes through it twice."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from s5mars.files import replacing

DTYPE = torch.float16
"""Half the disk of float32; whoever computes features rounds them to it with or without a cache."""


class FeatureCache:
    """A folder of features, one file an image; processes may share it.

    Args:
        folder: of all encoders.
        encoder: what tells encoders apart: a digest of its weights.
    """

    def __init__(self, folder: Path, encoder: str) -> None:
        self.folder = folder / encoder

    def get(self, image: Tensor) -> Tensor | None:
        """The features of an image, (3, H, W) uint8 on the CPU; None where there are none."""
        try:
            return load_file(self._path(image))["features"]
        except (FileNotFoundError, SafetensorError, KeyError):
            return None  # a damaged file is as good as none: it is written anew

    def put(self, image: Tensor, features: Tensor) -> None:
        """Keep features of an image; the file is whole or absent."""
        with replacing(self._path(image)) as temporary:
            temporary.write_bytes(save({"features": features.to("cpu", DTYPE).contiguous()}))

    def _path(self, image: Tensor) -> Path:
        content = hashlib.sha256(repr(tuple(image.shape)).encode())
        content.update(image.contiguous().numpy().tobytes())
        name = content.hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.safetensors"
