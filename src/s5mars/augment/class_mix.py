"""ClassMix: cut out half of the classes of an image (Olsson et al., WACV 2021)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from s5mars.classes import IGNORE
from s5mars.devices import send
from s5mars.errors import UserError
from s5mars.randomness import Generators, each


def class_regions(
    label: Tensor, valid: Tensor, *, generators: Generators, share: float = 0.5
) -> Tensor:
    """The pixels of a random share of the classes that each image shows.

    Of n classes ⌊share · n⌋ are taken. The paper says "half"; its released code and that of S5Mars
    round down, as here, so an image of one class gives an empty region.

    Args:
        label: (B, H, W) integer class index or IGNORE; what the teacher predicts, in ClassMix.
        valid: (B, H, W) bool; a class that shows on no valid pixel is not present.
        generators: one per image.
        share: share of the classes, in [0, 1].

    Returns:
        (B, H, W) bool, False where ``label`` is IGNORE or the pixel is not valid.

    Raises:
        UserError: if ``share`` is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise UserError(f"share must be in [0, 1] (got {share})")
    flat = label.long().where(valid, IGNORE).flatten(1)
    present = torch.zeros(len(flat), IGNORE + 1, dtype=torch.bool, device=flat.device)
    present.scatter_(1, flat, True)
    present[:, IGNORE] = False
    # Every class draws a number, present or not, so that draws do not depend on the image.
    numbers = each(generators, lambda g: g.random(IGNORE + 1, dtype=np.float32))
    drawn = send(torch.from_numpy(numbers), flat.device)
    rank = drawn.masked_fill(~present, 2.0).argsort(1).argsort(1)
    # Seven of 23, 7 / 23 · 23, is slightly less than 7 in single precision.
    wanted = torch.floor(share * present.sum(1, keepdim=True) + 1e-4)
    chosen = present & (rank < wanted)
    return chosen.gather(1, flat).view(label.shape)
