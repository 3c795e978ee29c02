"""Object proposals: binary masks of an image without a class, with a confidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from s5mars.errors import DamagedFileError


@dataclass(frozen=True)
class Proposal:
    """A mask that is probably one object."""

    counts: bytes  # compressed run lengths, as in COCO: column by column, starting with False
    size: tuple[int, int]  # (H, W) of the image, pixels
    box: tuple[float, float, float, float]  # x, y, width, height in pixels
    area: int  # pixels
    predicted_iou: float  # 0..1, the proposer's confidence in the mask
    stability: float  # 0..1, high if the mask changes little with the settings of the proposer
    proposer: str  # "graph", "sam", ...

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The decoded mask (H, W) bool; ``decode_window`` is faster for a part."""
        return decode_counts(self.counts, self.size).astype(bool)


def proposal_from_mask(
    mask: NDArray[np.bool_], *, predicted_iou: float, stability: float, proposer: str
) -> Proposal:
    """Create a proposal from a (H, W) bool mask; box and area are measured."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return proposal_from_rle(
        rle, predicted_iou=predicted_iou, stability=stability, proposer=proposer
    )


def proposal_from_rle(
    rle: Mapping[str, object], *, predicted_iou: float, stability: float, proposer: str
) -> Proposal:
    """Create a proposal from a compressed COCO RLE; box and area are measured."""
    height, width = (int(side) for side in rle["size"])  # type: ignore[attr-defined]
    x, y, box_width, box_height = (float(edge) for edge in coco_mask.toBbox(rle))
    counts = rle["counts"]
    return Proposal(
        counts=counts if isinstance(counts, bytes) else str(counts).encode("ascii"),
        size=(height, width),
        box=(x, y, box_width, box_height),
        area=int(coco_mask.area(rle)),
        predicted_iou=float(predicted_iou),
        stability=float(stability),
        proposer=proposer,
    )


def decode_counts(counts: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode compressed COCO run lengths to (H, W) uint8 of 0 and 1 in Fortran order.

    Raises:
        DamagedFileError: if they do not encode a mask of this size.
    """
    try:
        runs = run_lengths(counts)
        # pycocotools trusts its input and would read or write beyond the mask.
        if min(size) < 0 or (runs < 0).any() or runs.sum() != size[0] * size[1]:
            raise ValueError(f"the runs have {runs.sum()} pixels")
    except ValueError as error:
        raise DamagedFileError(
            f"a stored object mask of {size[0]}×{size[1]} pixels is damaged ({error}): make the "
            "object store again"
        ) from None
    decoded: NDArray[np.uint8] = coco_mask.decode({"size": list(size), "counts": counts})
    return decoded


def run_lengths(counts: bytes) -> NDArray[np.int64]:
    """Decode the compressed counts of COCO to run lengths.

    Each character holds five bits, the least significant first; 32 marks that more follow, and the
    highest bit of the last group is the sign. From the fourth run on, the numbers are differences
    to the run two before.

    Raises:
        ValueError: if the counts are not valid.
    """
    groups = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if len(groups) == 0:
        return groups
    if groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise ValueError("'counts' is not a compressed run-length string")
    last = (groups & 32) == 0
    starts = np.flatnonzero(np.r_[True, last[:-1]])
    lengths = np.diff(np.r_[starts, len(groups)])
    if lengths.max() > 8:
        raise ValueError("'counts' is not a compressed run-length string")
    place = np.arange(len(groups)) - np.repeat(starts, lengths)
    values = np.add.reduceat((groups & 31) << (5 * place), starts)
    negative = (groups[last] & 16) != 0
    values -= np.where(negative, 1 << (5 * lengths), 0)
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    return runs
