"""RanPaste: a rectangle cut anywhere in one image, pasted anywhere in another."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s5mars.augment.mix import paste
from s5mars.randomness import Generators, each
from s5mars.types import Targets, View


def random_paste(donors: View, target: View, generators: Generators, *, beta: float = 4.0) -> View:
    """Paste a random rectangle of each donor at a random place of the target with its index.

    The rectangle's sides are √(1 − λ) of the image's, λ ~ Beta(β, β), as in CutMix; both places
    are independent and lie within the image. Invalid pixels of the donor are not pasted.

    Args:
        donors: B images and their targets.
        target: B images and their targets, of the same size.
        generators: one per image.
        beta: β.
    """
    batch, _, height, width = target.image.shape
    side = np.sqrt(1 - each(generators, lambda g: g.beta(beta, beta)))
    rows, inside_rows = _moved(side, height, generators)
    columns, inside_columns = _moved(side, width, generators)
    device = target.image.device
    rows, columns = rows.to(device), columns.to(device)
    region = (inside_rows[:, :, None] & inside_columns[:, None, :]).to(device)

    image = torch.arange(batch, device=device)[:, None, None]
    at = (image, rows[:, :, None], columns[:, None, :])
    source = donors.targets
    valid = source.valid[at]
    moved = View(
        image=donors.image.movedim(1, -1)[at].movedim(-1, 1),
        targets=Targets(
            probability=source.probability.movedim(1, -1)[at].movedim(-1, 1),
            label=source.label[at],
            valid=valid,
        ),
    )
    return paste(region & valid, moved, target)


def _moved(side: NDArray[np.float64], length: int, generators: Generators) -> tuple[Tensor, Tensor]:
    """Along one axis, the source of each pixel and whether it is in the rectangle; (B, length)."""
    size = np.clip(np.rint(side * length), 1, length).astype(np.int64)
    room = length - size + 1
    source, target = (each(generators, lambda g: g.random(2)).T * room).astype(np.int64)
    position = np.arange(length)[None]
    offset = position - target[:, None]
    inside = (offset >= 0) & (offset < size[:, None])
    index = np.where(inside, source[:, None] + offset, position)
    return torch.from_numpy(index), torch.from_numpy(inside)
