"""Draw a contact sheet: small overlays of many products with captions and one legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from s5mars.classes import Taxonomy
from s5mars.errors import UserError
from s5mars.files import below, encoded_picture, write_bytes
from s5mars.files.reading import reading
from s5mars.predict.index import INDEX
from s5mars.predict.overlay import LEGEND_BACKGROUND, LEGEND_TEXT, overlay, with_legend
from s5mars.predict.reading import Failed, read_product
from s5mars.predict.sources import Source

SIDE = 320
"""Longer side of each picture in pixels."""

_TEXT, _GAP = 14, 8


@dataclass(frozen=True)
class Tile:
    """One product on the sheet."""

    name: str  # of its maps
    path: Path
    caption: str  # second line, below the name


def write_sheet(path: Path, tiles: Sequence[Tile], *, maps: Path, taxonomy: Taxonomy) -> None:
    """Draw the tiles line by line on a nearly square sheet.

    A tile is the overlay that prediction wrote, or one drawn from product and class map, or the
    product or class map alone, depending on which files exist.

    Args:
        path: path to a .png or .jpg file.
        tiles: at least one.
        maps: folder of the maps.
        taxonomy: classes of the maps.

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
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        x, y = _GAP + column * cell[0], _GAP + row * cell[1]
        picture = _picture(tile, maps, taxonomy)
        sheet.paste(picture, (x + (SIDE - picture.width) // 2, y + (SIDE - picture.height) // 2))
        for line, text in enumerate((tile.name, tile.caption)):
            top = y + SIDE + _GAP // 2 + line * round(1.4 * _TEXT)
            draw.text((x, top), _fitting(text, font), fill=LEGEND_TEXT, font=font)
    entries = [(entry.name, entry.colour) for entry in taxonomy.classes]
    picture = with_legend(sheet, entries, text=_TEXT + 4)
    write_bytes(path, encoded_picture(picture, path.suffix.lower()))


def check_ending(path: Path) -> None:
    """Raise UserError if the extension of a sheet is not supported."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"--sheet must be a .png or .jpg file (got {path})")


def _picture(tile: Tile, maps: Path, taxonomy: Taxonomy) -> Image.Image:
    source = Source(tile.path, tile.name)
    files = {
        kind: below(maps, file, source=maps / INDEX)
        for kind, file in source.outputs(("labels", "overlay")).items()
    }
    labels = _open(files["labels"])
    drawn = _open(files["overlay"])
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
            picture = Image.fromarray(read.image)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return picture


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
