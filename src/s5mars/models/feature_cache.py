"""Features of frozen encoders on disk, so that each image is encoded once."""

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


class FeatureFolder:
    """A folder of feature maps, with one file per digest; several processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, digest: str) -> list[Tensor] | None:
        """The maps of one image, on the CPU, or None if they are not there or damaged."""
        try:
            found = load_file(self._path(digest))
            return [found[str(level)] for level in range(len(found))]
        except (FileNotFoundError, SafetensorError, KeyError):
            return None

    def put(self, digest: str, maps: Sequence[Tensor]) -> None:
        """Store the maps of one image atomically."""
        content = {str(level): each.cpu().contiguous() for level, each in enumerate(maps)}
        write_bytes(self._path(digest), save(content))

    def _path(self, digest: str) -> Path:
        return self.folder / digest[:2] / f"{digest[2:]}.safetensors"


class FeatureCache:
    """The features of a frozen encoder for the pixels of images.

    ``encoder`` is a digest of the weights and of how images are prepared for them: each encoder has
    a folder of its own in ``folder``.
    """

    def __init__(self, folder: Path, encoder: str) -> None:
        self._stored = FeatureFolder(folder / encoder)

    def features(self, image: Tensor, encode: Callable[[], Sequence[Tensor]]) -> list[Tensor]:
        """Half-precision feature maps of an image, (3, H, W) uint8, on its device.

        ``encode`` makes new ones.
        """
        digest = _digest(image.cpu())
        maps = self._stored.get(digest)
        if maps is None:
            maps = [level.to(DTYPE) for level in encode()]
            self._stored.put(digest, maps)
        return [level.to(image.device) for level in maps]


def _digest(image: Tensor) -> str:
    content = hashlib.sha256(repr(tuple(image.shape)).encode())
    content.update(image.contiguous().numpy().tobytes())
    return content.hexdigest()
