"""Exchange between images of a batch: AugIN, or one of the other methods of table VII."""

from __future__ import annotations

from typing import Literal, cast, get_args

from torch import Tensor

from s5mars.augment.alternatives import Alternative, efdm, fda, wct
from s5mars.augment.statistics import Swap, augin
from s5mars.errors import require_choice

Exchange = Literal[Swap, Alternative]
_ALTERNATIVES = {"efdm": efdm, "wct": wct, "fda": fda}


def exchange(image: Tensor, valid: Tensor, *, partner: Tensor, kind: Exchange = "std") -> Tensor:
    """Transfer the statistics or frequencies of its partner to every image.

    Args:
        image: (B, C, H, W) float.
        valid: (B, H, W) bool; padding and no-data do not count and do not change.
        partner: (B,) int64 index of the partner of each image.
        kind: ``std``, ``mean`` or ``both`` for the variants of AugIN, ``efdm``, ``wct``, ``fda``,
            or ``none``.

    Raises:
        UserError: if ``kind`` is unknown.
    """
    require_choice(kind, get_args(Exchange), name="kind")
    if kind in _ALTERNATIVES:
        return _ALTERNATIVES[kind](image, valid, partner=partner)
    return augin(image, valid, partner=partner, swap=cast(Swap, kind))
