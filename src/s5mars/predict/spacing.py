"""Choose a few of many images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

_Item = TypeVar("_Item")


def evenly_spaced(items: Sequence[_Item], number: int) -> list[_Item]:
    """``number`` evenly spaced items, both ends included; all if there are fewer."""
    at = np.linspace(0, len(items) - 1, min(number, len(items))).round().astype(int)
    return [items[i] for i in at]
