"""A change of a mask: the values of a rectangle, as run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.errors import UserError

KEEP = -1
"""In a patch: a pixel that stays as it is."""

Values = NDArray[np.int16]


@dataclass(frozen=True)
class Patch:
    """New values of the pixels of a rectangle; ``KEEP`` where a pixel stays."""

    x: int
    y: int
    values: Values  # (h, w)

    @property
    def region(self) -> tuple[slice, slice]:
        """The rectangle in the image."""
        height, width = self.values.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    @property
    def box(self) -> list[int]:
        """``[x, y, width, height]``."""
        height, width = self.values.shape
        return [self.x, self.y, width, height]

    def fits(self, mask: NDArray[np.uint8]) -> bool:
        """Whether the rectangle lies in the mask."""
        height, width = self.values.shape
        return bool(self.y + height <= mask.shape[0] and self.x + width <= mask.shape[1])

    def applied(self, mask: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Patch]:
        """The mask after the change, and the patch that takes it back."""
        old = mask[self.region].astype(np.int16)  # a type that has KEEP
        changed = (self.values != KEEP) & (self.values != old)
        result = mask.copy()
        result[self.region] = np.where(changed, self.values, old)
        return result, Patch(self.x, self.y, np.where(changed, old, np.int16(KEEP)))

    def runs(self) -> list[int]:
        """``[length, value, length, value, ...]``, row by row."""
        flat = self.values.ravel()
        starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]])
        lengths = np.diff(np.r_[starts, flat.size])
        return np.stack([lengths, flat[starts]], 1).ravel().tolist()

    def to_dict(self) -> dict[str, object]:
        """A form for JSON."""
        return {"box": self.box, "runs": self.runs()}


def read_patch(
    box: Any, runs: Any, *, size: tuple[int, int], allowed: Sequence[int] | frozenset[int]
) -> Patch:
    """A patch from untrusted JSON.

    Args:
        box: ``[x, y, width, height]`` in pixels.
        runs: ``[length, value, ...]``, row by row.
        size: (H, W) of the image that the box must lie in.
        allowed: values that may occur besides ``KEEP``.

    Raises:
        UserError: if anything about it is wrong.
    """
    if not _whole_numbers(box) or len(box) != 4:
        raise UserError("box must be [x, y, width, height], whole numbers")
    x, y, width, height = box
    if min(x, y) < 0 or min(width, height) < 1 or x + width > size[1] or y + height > size[0]:
        raise UserError(f"box {box} is not inside the image of {size[1]}×{size[0]} pixels")
    if not _whole_numbers(runs) or len(runs) % 2 or not runs:
        raise UserError("runs must be pairs of length and value, whole numbers")
    lengths, values = np.array(runs[::2]), np.array(runs[1::2])
    if lengths.min() < 1 or lengths.max() > width * height or lengths.sum() != width * height:
        raise UserError(f"runs must cover the {width * height} pixels of the box exactly")
    unknown = set(np.unique(values).tolist()) - {KEEP, *allowed}
    if unknown:
        raise UserError(f"runs contain the unknown value {min(unknown)}")
    return Patch(x, y, np.repeat(values, lengths).reshape(height, width).astype(np.int16))


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and abs(v) < 2**31 for v in value)
