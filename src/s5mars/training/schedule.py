"""The learning rate over a run."""

from __future__ import annotations


def polynomial(step: int, *, total: int, power: float = 0.9, freeze_at: float = 1.0) -> float:
    """(1 − step/total)^power, section V-B, as a factor on the initial learning rate.

    Args:
        step: counted from 0.
        total: length of the run in steps.
        power: 0 keeps the rate constant.
        freeze_at: share of the run after which the factor stays; the released code stops
            lowering it after epoch 200 of 240.
    """
    return float(max(0.0, 1 - min(step, freeze_at * total) / total) ** power)
