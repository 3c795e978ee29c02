"""UniMatch's objective and its feature stream, from the paper."""

from __future__ import annotations

import numpy as np

from oracles.fixmatch import Labels, Mask, consistency, supervised
from oracles.s5mars import Array


def objective(
    labelled_logits: Array,
    labels: Labels,
    streams: list[tuple[Array, Array, Labels, Mask]],
    *,
    threshold: float,
) -> float:
    """L_x + 0.25 L_s1 + 0.25 L_s2 + 0.5 L_fp for the streams s1, s2, fp.

    A stream is (logits, teacher's probability, true labels, validity).
    """
    total = supervised(labelled_logits, labels)
    for weight, stream in zip((0.25, 0.25, 0.5), streams, strict=True):
        total += weight * consistency(*stream, threshold=threshold)[0]
    return total


def dropped_channels(before: Array, after: Array) -> list[bool]:
    """Which channels (B, C, H, W) are all zero; the others must be twice as large."""
    dropped = []
    for i, c in np.ndindex(before.shape[:2]):
        gone = not after[i, c].any()
        if not gone:
            np.testing.assert_allclose(after[i, c], 2 * before[i, c], rtol=1e-6)
        dropped.append(gone)
    return dropped
