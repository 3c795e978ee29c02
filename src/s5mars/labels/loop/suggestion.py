"""Class maps that the page shows and that are not labels yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s5mars.classes import IGNORE


@dataclass(frozen=True)
class Suggestion:
    """A class map that is not a label yet."""

    labels: NDArray[np.uint8]  # (H, W) class index, 255 where there is no data
    confidence: NDArray[np.uint8]  # (H, W), 0..255 for 0..1


def as_suggestion(
    labels: NDArray[Any], confidence: NDArray[Any], valid: NDArray[np.bool_]
) -> Suggestion:
    """A suggestion from class indices and confidences in 0..1."""
    shown = np.where(valid, labels, IGNORE).astype(np.uint8)
    sure = np.where(valid, np.round(confidence * 255), 0).astype(np.uint8)
    return Suggestion(shown, sure)
