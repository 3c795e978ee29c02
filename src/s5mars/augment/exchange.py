"""Exchange between images of a batch: AugIN, or one of the other methods of table VII."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from s5mars.augment.alternatives import Alternative, efdm, fda, wct
from s5mars.augment.statistics import Swap, augin
from s5mars.errors import UserError

Exchange = Literal[Swap, Alternative]


def exchange(image: Tensor, valid: Tensor, *, partner: Tensor, kind: Exchange = "std") -> Tensor:
    """Transfer the statistics or frequencies of its partner to every image.

    Args:
        image: (B, C, H, W) float.
        valid: (B, H, W) bool; padding and no-data do not count.
        partner: (B,) int64 index of the partner of each image.
        kind: ``std``, ``mean`` or ``both`` for the variants of AugIN, ``efdm``, ``wct``, ``fda``,
            or ``none``.

    Raises:
        UserError: if ``kind`` is unknown.
    """
    if kind == "efdm":
        return efdm(image, valid, partner=partner)
    if kind == "wct":
        return wct(image, valid, partner=partner)
    if kind == "fda":
        return fda(image, valid, partner=partner)
    if kind not in get_args(Swap):
        raise UserError(f"kind must be one of {', '.join(get_args(Exchange))} (got {kind!r})")
    return augin(image, valid, partner=partner, swap=kind)
