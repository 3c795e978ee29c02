"""Masks and stores small enough to reason about."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from s5mars.proposals.proposal import Proposal, proposal_from_mask


def rectangle(
    left: int, top: int, width: int, height: int, *, size: tuple[int, int] = (60, 80)
) -> NDArray[np.bool_]:
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def proposal(
    mask: NDArray[np.bool_], *, confidence: float = 0.99, proposer: str = "sam"
) -> Proposal:
    return proposal_from_mask(
        mask, predicted_iou=confidence, stability=confidence / 2, proposer=proposer
    )
