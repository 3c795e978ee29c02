"""Labels of two computations of the same probabilities, which may round differently.

Libraries, kernels of another processor, and batches of another size add in another order. So a
pixel whose two likeliest classes are as likely may get either; every other pixel gets the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MARGIN = 1e-3
RARE = 1e-4
"""Share of the pixels that may be as close as that to a tie and decided otherwise."""


def assert_same_labels(
    found: NDArray[np.uint8],
    expected: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    *,
    rare: float = RARE,
) -> None:
    """Labels (H, W) are equal where the probabilities (C, H, W) of the expected ones are no tie."""
    assert found.shape == expected.shape == probabilities.shape[1:]
    second, first = np.sort(probabilities, axis=0)[-2:]
    different = found != expected
    assert not (different & (first - second > MARGIN)).any()
    assert different.mean() <= max(rare, 1 / different.size)
