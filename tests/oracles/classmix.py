"""ClassMix, pixel by pixel."""

from __future__ import annotations

from oracles.pseudo_labels import Images, pseudo_loss
from oracles.s5mars import Array


def mix(pool: Images, partner: list[int], drawn: Array) -> Images:
    """Half of the partner's classes, those with the lowest numbers drawn, on each image."""
    mixed = pool.copy()
    batch, height, width = pool.label.shape
    for b in range(batch):
        a = partner[b]
        places = [(y, x) for y in range(height) for x in range(width) if pool.valid[a, y, x]]
        shown = sorted({pool.answer(a, y, x)[0] for y, x in places}, key=lambda c: drawn[b, c])
        chosen = shown[: len(shown) // 2]
        for y, x in places:
            if pool.answer(a, y, x)[0] in chosen:
                mixed.take(b, y, x, pool, (a, y, x))
    return mixed


def objective(logits: Array, mixed: Images, *, confident: float) -> tuple[float, float]:
    """(λ · mean cross-entropy, λ)."""
    loss, _, share = pseudo_loss(logits, mixed, above=confident)
    return share * loss, share
