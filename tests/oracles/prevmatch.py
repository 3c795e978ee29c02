"""The labels of earlier networks, from the paper."""

from __future__ import annotations

import numpy as np

from oracles.s5mars import Array


def ensemble(logits: list[Array], weights: list[float]) -> Array:
    """softmax over the classes (axis 1) of Σ_k w_k · logits_k."""
    total = sum(weight * each for weight, each in zip(weights, logits, strict=True))
    exponents = np.exp(np.asarray(total))
    return np.asarray(exponents / exponents.sum(1, keepdims=True))


def ramp(step: int, total: int) -> float:
    """λ of a step: up to 1 in the middle of the run, down to 0 at its end."""
    half = total / 2
    return step / half if step < half else (total - step) / half
