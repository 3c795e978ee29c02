"""The files of masks: where they are, how they are read and written, and when they change."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s5mars.data.layouts.files import as_spelled_in, list_images
from s5mars.data.read import known_ids
from s5mars.errors import UserError
from s5mars.files import encoded_picture, write_bytes
from s5mars.labels.loop.folder import LabelFolder
from s5mars.products.files import LISTED_ENDINGS, product_files
from s5mars.types import Sample

Stamp = tuple[int, ...] | None
"""What changes when a file is replaced or written; None if it is absent."""


class MaskFiles:
    """The folder ``masks/``; other programs write into it, too."""

    def __init__(self, folder: LabelFolder) -> None:
        self.folder = folder
        self.root = folder.root / "masks"
        listed = as_spelled_in(folder.images, list_images(self.root))
        self.found = {name: path for name, path in listed.items() if name in folder.images}
        """The masks of images when the page started."""

    def path(self, name: str) -> Path:
        """Where the mask of an image is written."""
        return self.root / f"{name}.png"

    def existing(self, name: str) -> Path | None:
        """The mask of an image in any format of the plain layout.

        The folder is searched each time, because other programs write masks meanwhile.
        """
        path = self.path(name)
        if path.exists():
            return path
        masks = [
            other
            for other in sorted(path.parent.glob(f"{glob.escape(path.stem)}.*"))
            if other.stem == path.stem and other.suffix.lower() in LISTED_ENDINGS
        ]
        spelled = self.found.get(name, path)  # perhaps with another spelling of an accent
        return next(iter(product_files(masks)), spelled if spelled.exists() else None)

    def read(self, name: str, path: Path) -> NDArray[np.uint8]:
        """(H, W) the ids of a mask; transparent pixels have that of ignored ones.

        Raises:
            UserError: if the mask is damaged or has ids that ``dataset.yaml`` lacks.
        """
        sample = Sample(name, self.folder.images[name], path)
        mask = known_ids(sample, self.folder.coding)
        ids = mask.ids.astype(np.uint8)
        if mask.valid is not None:
            ids = np.where(mask.valid, ids, self.folder.ignored_id).astype(np.uint8)
        return ids

    def write(self, name: str, ids: NDArray[np.uint8]) -> None:
        """Write the mask of an image, (H, W) ids, in place of any other mask of it.

        Raises:
            UserError: if a link would lead the file outside the folder.
        """
        path = self.path(name)
        if not path.parent.resolve().is_relative_to(self.folder.root.resolve()):
            raise UserError(f"{path.parent} is a link that leads outside the folder; replace it")
        old = self.existing(name)
        picture = Image.fromarray(ids)
        picture.putpalette(self._palette())
        write_bytes(path, encoded_picture(picture, ".png", compress_level=1))
        if old is not None and old != path and not (path.exists() and old.samefile(path)):
            # Two masks of one name are an error; the old one is kept where nothing reads it.
            aside = self.folder.state / "replaced" / old.relative_to(self.root)
            aside.parent.mkdir(parents=True, exist_ok=True)
            old.replace(aside)

    def _palette(self) -> list[int]:
        colours = [0] * 768
        for file_id, index in self.folder.coding.index_of.items():
            colours[3 * file_id : 3 * file_id + 3] = self.folder.taxonomy.classes[index].colour
        return colours


def stamp_of(path: Path | None) -> Stamp:
    """The stamp of a file, or of none."""
    if path is None:
        return None
    try:
        status = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
