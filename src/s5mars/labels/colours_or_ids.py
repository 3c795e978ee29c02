"""Whether the masks of an export hold the colours or the ids of the classes.

A single mask is ambiguous: unpainted pixels are black, which is also the id 0. So all masks of a
kind are read alike, according to what they show together:

- Masks with three channels hold colours. They hold ids if all of them are grey, and have a value
  that is no grey of a class and not black, or one that is among the ``ids`` of ``dataset.yaml``.
- Masks with a palette hold colours if it shows only colours of classes and black. Other palettes
  are only for show, and the masks hold ids, unless the unpainted pixels, which are black, would be
  a class then.
- Masks with one channel hold ids. They hold colours if they have only black and greys of classes
  that are not among the ``ids``, and other masks show colours or a class has a grey ``color``.
- A mask whose palette is black, or holds the greys 0, 1, 2, ..., is one without a palette.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np

from s5mars.classes import UNLABELLED_COLOUR, Colour, MaskCoding
from s5mars.errors import UserError
from s5mars.products.decode import MaskFile, decode_mask


class Kind(Enum):
    """How a mask stores its pixels."""

    CHANNELS = "three channels"
    PALETTE = "palette"
    GREY = "grey"
    DEEP = "more than 8 bits"


@dataclass(frozen=True)
class Declared:
    """What ``dataset.yaml`` declares."""

    colours: Collection[Colour]  # of all classes
    stated_colours: Collection[Colour]  # of classes with a ``color``
    coding: MaskCoding
    stated_ids: Collection[int]  # of classes with ``ids``

    def are_colours(self, values: set[int]) -> bool:
        """Whether grey values are black or colours of classes."""
        return values <= {0, *_greys(self.colours)}


def kind_of(mask: MaskFile) -> Kind:
    """The kind of a mask."""
    palette = mask.palette
    if mask.ids.dtype != np.uint8:
        return Kind.DEEP
    if mask.ids.ndim == 3:
        return Kind.CHANNELS
    if palette is None or not palette.any():
        return Kind.GREY
    only_greys = (palette == np.arange(len(palette))[:, None]).all()
    return Kind.GREY if only_greys else Kind.PALETTE


def is_coloured(mask: MaskFile) -> bool:
    """Whether the channels of a mask differ."""
    return mask.ids.ndim == 3 and bool((mask.ids != mask.ids[..., :1]).any())


def kinds_with_colours(paths: Iterable[Path], declared: Declared) -> frozenset[Kind]:
    """The kinds of masks that hold colours."""
    seen = _Seen()
    for path in paths:
        try:
            seen.add(decode_mask(path))
        except UserError:
            continue  # it is reported when its labels are read
    return seen.kinds(declared)


@dataclass
class _Seen:
    """What masks show."""

    coloured: bool = False
    values: Mapping[Kind, set[int]] = field(
        default_factory=lambda: {Kind.CHANNELS: set(), Kind.GREY: set()}
    )
    pairs: set[tuple[int, Colour]] = field(default_factory=set)  # indices and their colours

    def add(self, mask: MaskFile) -> None:
        kind = kind_of(mask)
        if kind is Kind.DEEP:
            return
        if is_coloured(mask):
            self.coloured = True
            return
        grey = mask.ids if mask.ids.ndim == 2 else mask.ids[..., 0]
        shown = np.bincount(grey.ravel() if mask.valid is None else grey[mask.valid])
        values = np.flatnonzero(shown).tolist()
        if kind is Kind.PALETTE and mask.palette is not None:
            colours = dict(enumerate(map(tuple, mask.palette.tolist())))
            self.pairs.update((value, colours.get(value, UNLABELLED_COLOUR)) for value in values)
        else:
            self.values[kind].update(values)

    def kinds(self, declared: Declared) -> frozenset[Kind]:
        colours = {colour for _, colour in self.pairs}
        painted = self.coloured or bool(colours.intersection(declared.colours))
        found = {
            Kind.CHANNELS: self._channels(declared, painted=painted),
            Kind.PALETTE: self._palette(declared, painted=painted),
            Kind.GREY: self._grey(declared, painted=painted),
        }
        return frozenset(kind for kind, holds in found.items() if holds)

    def _channels(self, declared: Declared, *, painted: bool) -> bool:
        values = self.values[Kind.CHANNELS]
        if self.coloured:
            return True
        return declared.are_colours(values) and (painted or values.isdisjoint(declared.stated_ids))

    def _palette(self, declared: Declared, *, painted: bool) -> bool:
        if {colour for _, colour in self.pairs} <= {UNLABELLED_COLOUR, *declared.colours}:
            return True
        black = {index for index, colour in self.pairs if colour == UNLABELLED_COLOUR}
        return painted and not black.isdisjoint(declared.coding.index_of)

    def _grey(self, declared: Declared, *, painted: bool) -> bool:
        values = self.values[Kind.GREY]
        if not painted and not _greys(declared.stated_colours):
            return False
        return declared.are_colours(values) and values.isdisjoint(declared.stated_ids)


def _greys(colours: Iterable[Colour]) -> set[int]:
    return {red for red, green, blue in colours if red == green == blue}
