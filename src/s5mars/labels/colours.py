"""Masks whose colours are labels."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s5mars.classes import Colour, hex_colour, rgb
from s5mars.errors import UserError, listed
from s5mars.labels.regions import Note, Region, Size
from s5mars.products.decode import decode
from s5mars.products.raster import Raster
from s5mars.text.numbers import plural


@dataclass(frozen=True)
class Coloured:
    """The colours of a mask, and what they mean."""

    path: Path
    codes: NDArray[np.int32]  # (H, W), 0xRRGGBB
    valid: NDArray[np.bool_]  # (H, W), False where transparent
    names: Mapping[Colour, str]  # label of each colour
    unpainted: Collection[Colour]  # colours that stand for no label

    @classmethod
    def of(
        cls,
        path: Path,
        raster: Raster,
        names: Mapping[Colour, str],
        unpainted: Collection[Colour],
    ) -> Coloured:
        """The colours of a decoded mask; grey is repeated.

        Raises:
            UserError: if it has more than 8 bits.
        """
        values = raster.values
        if values.dtype != np.uint8:
            raise UserError(f"{path} has {values.dtype} values, not colours of 8 bits: convert it")
        wide = values.astype(np.int32)
        codes = (
            wide * 0x010101
            if wide.ndim == 2
            else wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
        )
        valid = np.ones(codes.shape, bool) if raster.valid is None else raster.valid
        return cls(path, codes, valid, names, unpainted)

    def regions(self) -> Iterator[Region | Note]:
        """One region for each label, and a note on unknown colours."""
        for colour, label in self.names.items():
            mask = self.valid & (self.codes == _code(colour))
            if mask.any():
                yield Region(label, mask)
        unknown = self._unknown()
        if unknown.any():
            yield f"{self.path}: {_unknown_colours(self.codes[unknown])}"

    def _unknown(self) -> NDArray[np.bool_]:
        unknown = self.valid.copy()
        for colour in (*self.names, *self.unpainted):
            unknown &= self.codes != _code(colour)
        return unknown


def regions_of_colours(
    path: Path, names: Mapping[Colour, str], unpainted: Collection[Colour], size: Size
) -> Iterator[Region | Note]:
    """``Coloured.regions`` of a file; a note if it cannot be decoded."""
    try:
        mask = Coloured.of(path, decode(path), names, unpainted)
    except UserError as error:
        yield str(error)
    else:
        yield from mask.regions()


def shown_colour(value: object) -> Colour | None:
    """The colour of ``"#rrggbb"`` or ``[r, g, b]``; None otherwise, as it is only for show."""
    try:
        if isinstance(value, str):
            return rgb(value)
        if isinstance(value, list) and len(value) == 3:
            red, green, blue = (int(np.uint8(channel)) for channel in value)
            return red, green, blue
    except (UserError, OverflowError, TypeError, ValueError):
        pass
    return None


def _code(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _unknown_colours(codes: NDArray[np.int32]) -> str:
    found, counts = np.unique(codes, return_counts=True)
    named = [
        f"{hex_colour((int(found[k]) >> 16, int(found[k]) >> 8 & 255, int(found[k]) & 255))} "
        f"({counts[k]:,})"
        for k in np.argsort(-counts)
    ]
    pixels = plural(
        len(codes),
        "pixel has a colour of no label and is ignored",
        "pixels have colours of no label and are ignored",
    )
    return f"{pixels}: {listed(named, 4)}"
