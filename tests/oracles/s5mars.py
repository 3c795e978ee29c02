"""Equations 1–7 of the S5Mars paper, pixel by pixel in plain Python: slow, and easy to check."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(scores: Array) -> Array:
    powers = [math.exp(s) for s in scores]
    return np.array([p / sum(powers) for p in powers])


def augin(images: Array, valid: Array, partner: list[int], *, swap: str) -> Array:
    """Eq. 5 for images (B, C, H, W), over the valid pixels of each channel."""
    out = images.copy()
    batch, channels, height, width = images.shape
    for i in range(batch):
        j = partner[i]
        for c in range(channels):
            own = [
                images[i, c, y, x] for y in range(height) for x in range(width) if valid[i, y, x]
            ]
            other = [
                images[j, c, y, x] for y in range(height) for x in range(width) if valid[j, y, x]
            ]
            mean_i, mean_j = sum(own) / len(own), sum(other) / len(other)
            std_i = math.sqrt(sum((v - mean_i) ** 2 for v in own) / len(own))
            std_j = math.sqrt(sum((v - mean_j) ** 2 for v in other) / len(other))
            sigma = std_i if swap == "mean" else std_j
            mu = mean_i if swap == "std" else mean_j
            moved = sigma * (images[i, c] - mean_i) / std_i + mu
            out[i, c][valid[i]] = moved[valid[i]]
    return out


def objective(
    labelled_logits: Array,
    labels: NDArray[np.int64],
    strong_logits: Array,
    teacher_probability: Array,
    true_labels: NDArray[np.int64],
    valid: NDArray[np.bool_],
    *,
    lambda_u: float,
    lambda_s: float,
    t_hard: float,
    t_soft: float,
) -> tuple[float, float, float, float]:
    """(L, L_sup, L_hard, L_soft); 255 is "unknown", invalid pixels take part in nothing."""
    supervised, count = 0.0, 0
    for b in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                if labels[b, y, x] != 255:
                    supervised -= math.log(softmax(labelled_logits[b, :, y, x])[labels[b, y, x]])
                    count += 1
    supervised = supervised / count if count else 0.0

    hard, soft, pixels = 0.0, 0.0, 0
    for b in range(valid.shape[0]):
        for y in range(valid.shape[1]):
            for x in range(valid.shape[2]):
                if not valid[b, y, x]:
                    continue
                pixels += 1
                student = softmax(strong_logits[b, :, y, x])
                teacher = teacher_probability[b, :, y, x]
                confidence, target = max(teacher), int(np.argmax(teacher))
                if true_labels[b, y, x] != 255:
                    confidence, target = 1.0, int(true_labels[b, y, x])
                if confidence > t_hard:  # eq. 3 and 4
                    hard -= math.log(student[target])
                if confidence < t_soft:  # eq. 6
                    soft -= sum(p * math.log(q) for p, q in zip(teacher, student, strict=True))
    hard, soft = hard / max(pixels, 1), soft / max(pixels, 1)
    total = supervised + lambda_u * (hard + lambda_s * soft)  # eq. 1 and 7
    return total, supervised, hard, soft
