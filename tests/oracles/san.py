"""SAN's loss pixel by pixel and match by match, written from the paper's equations."""

from __future__ import annotations

import itertools
import math

from torch import Tensor


def costs(mask: Tensor, truth: Tensor) -> tuple[float, float]:
    """BCE and dice of one mask, (K,) logits, and one class, (K,) 0 or 1."""
    bce = inter = sizes = 0.0
    for m, t in zip(mask.tolist(), truth.tolist(), strict=True):
        p = 1 / (1 + math.exp(-m))
        bce -= math.log(p) if t else math.log(1 - p)
        inter += p * t
        sizes += p + t
    return bce / len(mask), 1 - (2 * inter + 1) / (sizes + 1)


def loss(
    masks: Tensor, classes: Tensor, label: Tensor, *, ignore: int = 255
) -> tuple[float, float, float]:
    """L_cls, L_BCE, L_dice of one image.

    Args:
        masks: (Q, H, W) logits at the label's size.
        classes: (Q, C + 1) logits.
        label: (H, W).
    """
    known = label != ignore
    names = sorted(set(label[known].tolist()))
    queries, none = len(masks), classes.shape[1] - 1
    found = {
        (q, c): costs(masks[q][known], (label[known] == c).float())
        for q in range(queries)
        for c in names
    }
    probability = classes.softmax(1)

    def price(chosen: tuple[int, ...]) -> float:
        return sum(
            -2 * float(probability[q, c]) + 5 * found[q, c][0] + 5 * found[q, c][1]
            for q, c in zip(chosen, names, strict=True)
        )

    best = min(itertools.permutations(range(queries), len(names)), key=price)
    target = {q: (c, 1.0) for q, c in zip(best, names, strict=True)}
    total = weights = 0.0
    for q in range(queries):
        share = float(masks[q].sigmoid()[known].sum() / masks[q].sigmoid().sum())
        c, weight = target.get(q, (none, 0.1 * share))
        total -= weight * math.log(float(probability[q, c]))
        weights += weight
    pairs = [found[q, c] for q, c in zip(best, names, strict=True)]
    return (
        total / weights,
        sum(b for b, _ in pairs) / len(pairs),
        sum(d for _, d in pairs) / len(pairs),
    )
