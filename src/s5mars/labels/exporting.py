"""From maps of ``s5mars predict`` to a label tool, for correction: the least confident first."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from s5mars.classes import IGNORE, MaskCoding, Taxonomy
from s5mars.data.layouts.plain import DESCRIPTION, write_description
from s5mars.data.read import image_size, read_image
from s5mars.errors import MissingFileError, UserError, require_choice
from s5mars.files import below, encoded_picture, write_bytes, write_text
from s5mars.files.locking import is_empty, locked
from s5mars.files.spreadsheet import csv_text
from s5mars.labels import coco, cvat_masks, labelme
from s5mars.labels.images import place
from s5mars.labels.regions import Writer
from s5mars.predict.index import read_index
from s5mars.predict.sources import INDEX
from s5mars.products.decode import decode_mask
from s5mars.products.files import IMAGE_ENDINGS
from s5mars.text.numbers import count, plural

ORDER = "order.csv"
WARNINGS = "warnings.txt"


WRITERS: dict[str, Callable[[Path, Taxonomy], AbstractContextManager[Writer]]] = {
    "cvat": cvat_masks.writing,
    "labelme": labelme.writing,
    "coco": coco.writing,
}


@dataclass(frozen=True)
class Exported:
    """What an export has made."""

    out: Path
    result: Path
    images: int
    linked: int
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        """Lines for the user."""
        copied = self.images - self.linked
        placed = f"{count(self.linked)} hard-linked, {count(copied)} copied or converted"
        lines = [
            f"{self.result}: labels of {plural(self.images, 'image')} ({placed})",
            f"{self.out / ORDER} lists them, the least confident first",
        ]
        if self.warnings:
            lines.append(f"{plural(len(self.warnings), 'warning')}: see {self.out / WARNINGS}")
        return "\n".join(lines)


def export_labels(
    maps: Path | str, *, to: str, out: Path | str, top: int | None = None
) -> Exported:
    """Write the maps of ``s5mars predict`` in the format of a label tool.

    Pixels without a class are left unpainted. ``dataset.yaml`` keeps the order of the classes for
    ``import --classes``. The images stand in the order of ``order.csv``:
    ascending mean confidence, so that the map that most needs a correction comes first.

    Args:
        maps: output folder of ``s5mars predict`` with class maps.
        to: a key of ``WRITERS``.
        top: number of images, the least confident ones; None exports all.

    Raises:
        MissingFileError: if the folder has no index.
        UserError: if ``to`` or ``top`` is wrong, ``out`` contains files, no map could be exported,
            or the format cannot hold a class name.
        OSError: if writing fails.
    """
    maps, out = Path(maps), Path(out)
    require_choice(to, WRITERS, name="--to")
    if top is not None and top < 1:
        raise UserError(f"--top must be at least 1 (got {top})")
    table, taxonomy = read_index(maps)
    root = maps if maps.is_dir() else maps.parent
    if out.exists() and not (out.is_dir() and is_empty(out)):
        raise UserError(f"--out {out} contains files; choose a new folder")
    rows = [row for row in table.to_pylist() if row["status"] == "done"]
    rows.sort(key=_least_confident)
    with locked(out), WRITERS[to](out, taxonomy) as writer:
        run = _Export(root, taxonomy, writer)
        for row in tqdm(rows[:top], unit="image", desc="export", disable=None):
            run.take(row)
        if not run.order:
            first = f"; first reason: {run.warnings[0]}" if run.warnings else ""
            raise UserError(f"{maps}: no map could be exported{first}")
        lines = [("rank", "image", "name", "mean_confidence"), *run.order]
        write_text(out / ORDER, csv_text(lines))
        write_description(out / DESCRIPTION, taxonomy, MaskCoding.identity(len(taxonomy)))
        if run.warnings:
            write_text(out / WARNINGS, "".join(f"{line}\n" for line in run.warnings))
    return Exported(out, writer.result, len(run.order), run.linked, tuple(run.warnings))


def _least_confident(row: dict[str, Any]) -> tuple[bool, float, str]:
    confidence = row["mean_confidence"]
    return confidence is None, confidence or 0.0, str(row["name"])


@dataclass
class _Export:
    """One export."""

    maps: Path
    taxonomy: Taxonomy
    writer: Writer
    order: list[tuple[object, ...]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    linked: int = 0
    names: set[str] = field(default_factory=set)

    def take(self, row: dict[str, Any]) -> None:
        """Write the image and the labels of a row of the index."""
        try:
            labels = self._labels(str(row["name"]))
            source = Path(str(row["path"]))
            if not source.is_file():
                raise MissingFileError(f"{source}: no such file; its map is left out")
            size = image_size(source)
            if size != labels.shape[::-1]:
                raise UserError(
                    f"{source}: {size[0]}×{size[1]} pixels, but its map has {labels.shape[1]}×"
                    f"{labels.shape[0]}; predict it again"
                )
            file_name = self._file_name(row, source)
            self._image(source, file_name)
        except UserError as error:
            self.warnings.append(" ".join(str(error).split()))
            return
        self.writer.add(file_name, labels)
        confidence = row["mean_confidence"]
        said = "" if confidence is None else f"{confidence:.4f}"
        self.order.append((len(self.order) + 1, file_name, row["name"], said))

    def _labels(self, name: str) -> NDArray[np.uint8]:
        path = below(self.maps, f"{name}.png", source=self.maps / INDEX)
        if not path.is_file():
            raise MissingFileError(
                f"{path}: no class map; run s5mars predict with --write labels,..."
            )
        ids = decode_mask(path).ids
        if ids.ndim != 2 or ids.dtype != np.uint8:
            raise UserError(f"{path} is not a class map of s5mars predict; predict it again")
        if ((ids >= len(self.taxonomy)) & (ids != IGNORE)).any():
            raise UserError(
                f"{path} has ids that are not classes of {self.maps / INDEX}; predict it again"
            )
        return ids

    def _file_name(self, row: dict[str, Any], source: Path) -> str:
        """Return the file name of the exported image: its own, with its folder, or numbered."""
        folder = PurePosixPath(str(row["name"])).parent
        ending = source.suffix if source.suffix.lower() in IMAGE_ENDINGS else ".png"
        name = first = (folder / source.stem).as_posix()
        number = 2
        # Label tools know an image without its ending, so two names must not differ only in it.
        while name in self.names:
            name = f"{first}~{number}"
            number += 1
        self.names.add(name)
        return f"{name}{ending}"

    def _image(self, source: Path, file_name: str) -> None:
        target = below(self.writer.images, file_name, source=self.maps / INDEX)
        if source.suffix.lower() in IMAGE_ENDINGS:
            self.linked += place(source, target)
        else:  # no label tool opens a product
            picture = Image.fromarray(read_image(source))
            write_bytes(target, encoded_picture(picture, target.suffix.lower()))
