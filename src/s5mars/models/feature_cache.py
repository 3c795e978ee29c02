"""Cache the features of a frozen encoder on disk, so that each image is encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from s5mars.files import write_bytes

DTYPE = torch.float16
"""Takes half the space of float32; features are rounded to it with and without a cache."""


class FeatureCache:
    """A folder of features, with one file per image; several processes may use it at once.

    ``encoder`` is a digest of the weights: each encoder has a folder of its own in ``folder``.
    """

    def __init__(self, folder: Path, encoder: str) -> None:
        self.folder = folder / encoder

    def features(self, image: Tensor, encode: Callable[[], Sequence[Tensor]]) -> list[Tensor]:
        """Half-precision feature maps of an image, (3, H, W) uint8, on its device.

        ``encode`` makes new ones.
        """
        path = self._path(image.cpu())
        try:
            found = load_file(path)
            maps = [found[str(level)] for level in range(len(found))]
        except (FileNotFoundError, SafetensorError, KeyError):  # a damaged file is written again
            maps = [level.to(DTYPE) for level in encode()]
            content = {str(level): x.cpu().contiguous() for level, x in enumerate(maps)}
            write_bytes(path, save(content))
        return [level.to(image.device) for level in maps]

    def _path(self, image: Tensor) -> Path:
        content = hashlib.sha256(repr(tuple(image.shape)).encode())
        content.update(image.contiguous().numpy().tobytes())
        name = content.hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.safetensors"
