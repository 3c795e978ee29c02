"""Draw a contact sheet: small overlays of many products with captions and one legend."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont

from s5mars.classes import IGNORE, Taxonomy
from s5mars.errors import UserError
from s5mars.files import below, encoded_picture, write_bytes
from s5mars.files.reading import reading
from s5mars.predict.overlay import (
    LEGEND_BACKGROUND,
    LEGEND_TEXT,
    above_legend,
    indexed_png,
    overlay,
)
from s5mars.predict.reading import Failed, read_product
from s5mars.predict.sources import ENDINGS, INDEX, Source

SIDE = 320
"""Longer side of each picture in pixels."""

_TEXT, _GAP = 14, 8


@dataclass(frozen=True)
class Tile:
    """One product on the sheet."""

    name: str  # of its maps
    path: Path
    caption: str  # second line, below the name


def write_sheet(
    path: Path,
    tiles: Sequence[Tile],
    *,
    maps: Path,
    taxonomy: Taxonomy,
    only: Collection[str] | None = None,
) -> None:
    """Draw the tiles line by line on a nearly square sheet.

    A tile is the overlay that prediction wrote, or one drawn from product and class map, or the
    product or class map alone, depending on which files exist. The legend has the classes that
    are there.

    Args:
        only: names of the classes to colour; None colours all.

    Raises:
        UserError: if the extension is not supported.
        OSError: if writing fails, with a clear message for a full disk.
    """
    check_ending(path)
    font = ImageFont.load_default(_TEXT)
    columns = math.ceil(math.sqrt(len(tiles)))
    cell = (SIDE + _GAP, SIDE + 2 * round(1.4 * _TEXT) + 2 * _GAP)
    size = (columns * cell[0] + _GAP, math.ceil(len(tiles) / columns) * cell[1] + _GAP)
    sheet = Image.new("RGB", size, LEGEND_BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    hidden = [i for i, name in enumerate(taxonomy.names) if only is not None and name not in only]
    there: set[int] = set()
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        x, y = _GAP + column * cell[0], _GAP + row * cell[1]
        picture, classes = _picture(tile, maps, taxonomy, hidden)
        there |= classes
        sheet.paste(picture, (x + (SIDE - picture.width) // 2, y + (SIDE - picture.height) // 2))
        for line, text in enumerate((tile.name, tile.caption)):
            top = y + SIDE + _GAP // 2 + line * round(1.4 * _TEXT)
            draw.text((x, top), _fitting(text, font), fill=LEGEND_TEXT, font=font)
    entries = [(entry.name, entry.colour) for i, entry in enumerate(taxonomy.classes) if i in there]
    canvas = above_legend(sheet.width, sheet.height, entries, text=_TEXT + 4)
    canvas.paste(sheet)
    write_bytes(path, encoded_picture(canvas, path.suffix.lower()))


def check_ending(path: Path) -> None:
    """Raise UserError if the extension of a sheet is not supported."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"--sheet must be a .png or .jpg file (got {path})")


def refuse_overwriting_index(path: Path, table: pa.Table, *, maps: Path) -> None:
    """Raise a UserError if a sheet would overwrite a product or a map of an index."""
    if not path.exists():
        return
    for row in table.select(["path", "name"]).to_pylist():
        files = Source(Path(row["path"]), row["name"]).outputs(ENDINGS).values()
        for file in (Path(row["path"]), *(maps / file for file in files)):
            if file.name in (path.name, path.resolve().name) and _is_same(file, path):
                raise UserError(
                    f"--sheet {path} is a product or map of the index and would be overwritten: "
                    "give another path"
                )


def _is_same(file: Path, other: Path) -> bool:
    try:
        return file.samefile(other)
    except OSError:
        return False


def _picture(
    tile: Tile, maps: Path, taxonomy: Taxonomy, hidden: Sequence[int]
) -> tuple[Image.Image, set[int]]:
    """The small picture of a product, and the indices of the classes that it shows."""
    source = Source(tile.path, tile.name)
    files = {
        kind: below(maps, file, source=maps / INDEX)
        for kind, file in source.outputs(("labels", "overlay")).items()
    }
    labels = _open(files["labels"])
    drawn = None if hidden else _open(files["overlay"])
    there = set(range(len(taxonomy))) - {*hidden}
    if labels is not None:
        indices = np.array(labels)
        there &= {*np.unique(indices).tolist()}
        if hidden:
            indices[np.isin(indices, hidden)] = IGNORE
            labels = indexed_png(indices, taxonomy)
    if drawn is not None:
        # Its upper left is the image; the rest is its legend.
        picture = drawn.convert("RGB").crop((0, 0, *(labels or drawn).size))
    else:
        read = read_product(source)
        if isinstance(read, Failed):
            picture = labels.convert("RGB") if labels else Image.new("RGB", (SIDE, SIDE))
        elif labels is not None and labels.size == read.image.shape[1::-1]:
            picture = overlay(read.image, np.array(labels), taxonomy, legend=False)
        else:
            picture, there = Image.fromarray(read.image), set()
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return picture, there


def _open(path: Path) -> Image.Image | None:
    try:
        with reading(path, kind="picture"), Image.open(path, formats=("PNG", "JPEG")) as picture:
            picture.load()
            return picture
    except (OSError, UserError):
        return None


def _fitting(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Shorten text that is too long for a tile, with an ellipsis in the middle."""
    kept = text
    keep = len(text)
    while font.getlength(kept) > SIDE and keep > 2:
        keep -= 1
        kept = f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"
    return kept
