"""AugSeg's confidence and adaptive CutMix, pixel by pixel in plain Python."""

from __future__ import annotations

import math

import numpy as np

from oracles.fixmatch import Labels, Mask
from oracles.s5mars import Array


def confidence(probability: Array, valid: Mask) -> list[float]:
    """ρ of each image: the mean of max p · (1 − H(p) / log C) over its valid pixels."""
    scores = []
    for image, counted in zip(probability, valid, strict=True):
        values = []
        for y, x in np.ndindex(counted.shape):
            if counted[y, x]:
                p = image[:, y, x]
                entropy = -sum(v * math.log(v) for v in p if v > 0)
                values.append(max(p) * (1 - entropy / math.log(len(p))))
        scores.append(sum(values) / len(values) if values else 0.0)
    return scores


def adaptive_cut_mix(
    images: Array,
    labels: Labels,
    donors: Array,
    donor_labels: Labels,
    donor_valid: Mask,
    *,
    scores: list[float],
    draws: Array,
    donor: list[int],
    patch: Mask,
    partner: list[int],
    rectangle: Mask,
) -> tuple[Array, Labels]:
    """Images (B, 3, H, W) and label maps (B, H, W) after both pastes.

    ``labels`` may hold any code for a pseudo-label; a donor's unlabelled pixel brings its 255.
    """
    injected, injected_labels = images.copy(), labels.copy()
    for i, y, x in np.ndindex(patch.shape):
        if draws[i] > scores[i] and patch[i, y, x] and donor_valid[donor[i], y, x]:
            injected[i, :, y, x] = donors[donor[i], :, y, x]
            injected_labels[i, y, x] = donor_labels[donor[i], y, x]
    mixed, mixed_labels = images.copy(), labels.copy()
    for i, y, x in np.ndindex(rectangle.shape):
        if rectangle[i, y, x]:
            mixed[i, :, y, x] = injected[partner[i], :, y, x]
            mixed_labels[i, y, x] = injected_labels[partner[i], y, x]
    return mixed, mixed_labels
