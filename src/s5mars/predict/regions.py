"""Connected regions of a class map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_PIXELS = 1 << 22  # pixels counted at a time: numpy widens each to 8 bytes


def class_counts(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number of pixels of each of the 256 values of a class map."""
    # Pillow counts bytes directly and faster; numpy would need eight times the memory.
    return np.array(Image.fromarray(labels).histogram(), np.int64)


def largest_regions(labels: NDArray[np.uint8], classes: int) -> list[int]:
    """Number of pixels of the largest connected region (4 neighbours) of each class.

    It is 0 for absent classes.

    Args:
        labels: (H, W) uint8 class index; 255 is no class.
    """
    counts = class_counts(labels)
    return [_largest(labels == index) if counts[index] else 0 for index in range(classes)]


def _largest(mask: NDArray[np.bool_]) -> int:
    from scipy import ndimage  # slow to import, and overlays need only the counts

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    regions = np.empty(box.shape, np.int32)
    number = int(ndimage.label(box, output=regions))
    if number == 1:
        return int(np.count_nonzero(box))
    flat = regions.ravel()
    sizes = np.zeros(number + 1, np.int64)
    for start in range(0, flat.size, _PIXELS):
        part = np.bincount(flat[start : start + _PIXELS])
        sizes[: len(part)] += part
    return int(sizes[1:].max())
