"""One object proposal: a binary mask of an image, without a class, and how sure its maker is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask


@dataclass(frozen=True)
class Proposal:
    """A mask that is probably one object. ``s5mars.proposals.graph`` and SAM make them."""

    counts: bytes  # compressed run lengths, as in COCO: column by column, starting with False
    size: tuple[int, int]  # (H, W) of the image, pixels
    box: tuple[float, float, float, float]  # x, y, width, height in pixels
    area: int  # pixels
    predicted_iou: float  # 0..1, the proposer's confidence in the mask
    stability: float  # 0..1, how little the mask changes with the proposer's settings
    proposer: str  # "graph", "sam", ...

    @property
    def rle(self) -> dict[str, object]:
        """COCO run-length encoding, ``{"size": [H, W], "counts": bytes}``, for pycocotools."""
        return {"size": list(self.size), "counts": self.counts}

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) bool, the whole mask decoded; ``decode_window`` is cheaper for a part of it."""
        return decode_counts(self.counts, self.size).astype(bool)


def proposal_from_mask(
    mask: NDArray[np.bool_], *, predicted_iou: float, stability: float, proposer: str
) -> Proposal:
    """A proposal from a (H, W) bool mask; box and area are measured from it."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return proposal_from_rle(
        rle, predicted_iou=predicted_iou, stability=stability, proposer=proposer
    )


def proposal_from_rle(
    rle: Mapping[str, object], *, predicted_iou: float, stability: float, proposer: str
) -> Proposal:
    """A proposal from a compressed COCO RLE; box and area are measured from the runs."""
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
    """(H, W) uint8 of 0 and 1 in Fortran order, from compressed COCO run lengths."""
    decoded: NDArray[np.uint8] = coco_mask.decode({"size": list(size), "counts": counts})
    return decoded
