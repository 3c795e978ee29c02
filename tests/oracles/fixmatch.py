"""FixMatch for segmentation, pixel by pixel in plain Python: slow, and easy to check."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from oracles.s5mars import Array, softmax

Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]


def supervised(logits: Array, labels: Labels) -> float:
    """L_x: the mean cross-entropy over the pixels that have a label."""
    losses = [
        -math.log(softmax(logits[i, :, y, x])[labels[i, y, x]])
        for i, y, x in np.ndindex(labels.shape)
        if labels[i, y, x] != 255
    ]
    return sum(losses) / len(losses) if losses else 0.0


def consistency(
    logits: Array, probability: Array, true_labels: Labels, valid: Mask, *, threshold: float
) -> tuple[float, float]:
    """L_u and the share of kept pixels: both over the valid pixels, kept or not."""
    total, kept, pixels = 0.0, 0, 0
    for i, y, x in np.ndindex(valid.shape):
        if not valid[i, y, x]:
            continue
        pixels += 1
        prediction = list(probability[i, :, y, x])
        if true_labels[i, y, x] != 255:
            target = int(true_labels[i, y, x])
        elif max(prediction) > threshold:
            target = prediction.index(max(prediction))
        else:
            continue
        kept += 1
        total -= math.log(softmax(logits[i, :, y, x])[target])
    return total / max(pixels, 1), kept / max(pixels, 1)


def cut_mix(images: Array, region: Mask, partner: list[int]) -> Array:
    """Inside its region an image (C, H, W) shows its partner."""
    mixed = images.copy()
    for i, y, x in np.ndindex(region.shape):
        if region[i, y, x]:
            mixed[i, :, y, x] = images[partner[i], :, y, x]
    return mixed
