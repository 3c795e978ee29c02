"""U²PL, pixel by pixel and anchor by anchor."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from oracles.s5mars import Array, softmax

Mask = NDArray[np.bool_]
Labels = NDArray[np.int64]


def entropy(probability: Array) -> Array:
    batch, _, height, width = probability.shape
    out = np.zeros((batch, height, width))
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                out[b, y, x] = -sum(p * math.log(p) for p in probability[b, :, y, x] if p > 0)
    return out


def split(
    probability: Array, label: Labels, valid: Mask, *, drop: float, anchors: float, left: float
) -> tuple[Mask, Mask, Mask]:
    """(reliable, may be anchors, unreliable); ``left`` is 1 − t / T."""
    amount = entropy(probability)
    unlabelled = [amount[i] for i in np.ndindex(valid.shape) if valid[i] and label[i] == 255]
    most = float(np.percentile(unlabelled, 100 - (100 - drop) * left))
    few = float(np.percentile(unlabelled, anchors * left))
    reliable, sure, unsure = (np.zeros_like(valid) for _ in range(3))
    for i in np.ndindex(valid.shape):
        if valid[i] and label[i] != 255:
            reliable[i] = sure[i] = True
        elif valid[i]:
            reliable[i], sure[i], unsure[i] = amount[i] <= most, amount[i] <= few, amount[i] > most
    return reliable, sure, unsure


def unsupervised(logits: Array, hard: Labels, reliable: Mask, valid: Mask) -> float:
    losses = [
        -math.log(softmax(logits[b, :, y, x])[hard[b, y, x]])
        for b, y, x in np.ndindex(valid.shape)
        if reliable[b, y, x]
    ]
    return sum(losses) / len(losses) * (int(valid.sum()) / len(losses))


def contrastive(
    student: Array,
    teacher: Array,
    probability: Array,
    hard: Labels,
    known: Mask,
    sure: Mask,
    unsure: Mask,
    *,
    draw: Callable[[int, int, int], tuple[Labels, Labels]],
    banks: dict[int, list[Array]],
    delta: float,
    low: int,
    high: int,
    temperature: float,
) -> float:
    """Embeddings are (B, D, H, W). ``draw(class, candidates, queue length)`` gives the indices of
    anchors and of their negatives. ``banks`` is filled."""
    losses = []
    for c in range(probability.shape[1]):
        bank, candidates = banks.setdefault(c, []), []
        for b, y, x in np.ndindex(hard.shape):
            order = sorted(range(probability.shape[1]), key=lambda k: -probability[b, k, y, x])
            rank = order.index(c)
            label_says_no = known[b, y, x] and hard[b, y, x] != c and rank < low
            teacher_says_no = unsure[b, y, x] and low <= rank < high
            if label_says_no or teacher_says_no:
                unit = teacher[b, :, y, x] / np.linalg.norm(teacher[b, :, y, x])
                bank.append(unit.astype(np.float16).astype(np.float64))
            if sure[b, y, x] and hard[b, y, x] == c and probability[b, c, y, x] > delta:
                candidates.append((b, y, x))
        if not candidates or not bank:
            continue
        centre = np.mean([teacher[b, :, y, x] for b, y, x in candidates], axis=0)
        chosen, negatives = draw(c, len(candidates), len(bank))
        total = 0.0
        for anchor, others in zip(chosen, negatives, strict=True):
            b, y, x = candidates[int(anchor)]
            z = student[b, :, y, x]
            positive = math.exp(cosine(z, centre) / temperature)
            rest = sum(math.exp(cosine(z, bank[int(j)]) / temperature) for j in others)
            total -= math.log(positive / (positive + rest))
        losses.append(total / len(chosen))
    return sum(losses) / len(losses) if losses else 0.0


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
