"""RanPaste as this project reads it, pixel by pixel."""

from __future__ import annotations

from oracles.pseudo_labels import Images, pseudo_loss
from oracles.s5mars import Array

Box = tuple[int, int, int, int, int, int]


def paste(
    pool: Images,
    donors: Images,
    chosen: list[int],
    boxes: list[tuple[int, int, int, int, int, int]],
) -> Images:
    """Boxes are (height, width, top and left in the donor, top and left in the pool image)."""
    pasted = pool.copy()
    for b, (height, width, from_y, from_x, to_y, to_x) in enumerate(boxes):
        for y in range(height):
            for x in range(width):
                place = (chosen[b], from_y + y, from_x + x)
                if donors.valid[place]:
                    pasted.take(b, to_y + y, to_x + x, donors, place)
    return pasted


def objective(logits: Array, pasted: Images, *, threshold: float) -> tuple[float, float]:
    """(mean over valid pixels of the cross-entropy of the sure ones, their share)."""
    _, loss, share = pseudo_loss(logits, pasted, above=threshold)
    return loss, share
