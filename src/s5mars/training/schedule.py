"""Schedules of the learning rate, the unsupervised weight and the teacher."""

from __future__ import annotations

import math

from s5mars.settings.config import ROUNDING


def polynomial(step: int, *, total: int, power: float, freeze_at: float) -> float:
    """(1 − step/total)^power, section V-B, as a factor on the initial learning rate.

    Args:
        step: counted from 0.
        total: length of the run in steps.
        power: 0.9 in the paper; 0 keeps the rate constant.
        freeze_at: share of the run after which the factor stays; 1 in the paper, while the
            released code stops lowering it after epoch 200 of 240.
    """
    return float(max(0.0, 1 - min(step, freeze_at * total) / max(total, 1)) ** power)


def ramp(step: int, *, start: float, length: float) -> float:
    """The factor on the unsupervised terms: 0 in the warm-up, then exp(−5 (1 − t)²) up to 1.

    The sigmoid-shaped ramp is Mean Teacher's (Tarvainen and Valpola, NeurIPS 2017), with t from 0
    to 1 over ``length``.

    Args:
        step: counted from 0.
        start: number of steps on labels alone.
        length: length of the ramp after them in steps; both are 0 in the paper.
    """
    if step < start - ROUNDING:
        return 0.0
    if step >= start + length - ROUNDING:
        return 1.0
    return math.exp(-5 * (1 - (step - start) / length) ** 2)


def teacher_momentum(step: int, *, total: int, limit: float, span: float) -> float:
    """m = min(1 − 1/(step + 1), limit), section V-B, with a smaller limit in a short run.

    The first update copies the student, and early averages forget quickly. A moving average with
    momentum m spans about 1/(1 − m) steps: 250 for the paper's 0.996, which is 0.2 % of its 150 000
    steps but nearly half of a run of 600. Here the average never spans more than the share ``span``
    of the run.

    Args:
        step: counted from 0.
        total: length of the run in steps.
        limit: largest momentum in long runs, 0.996 in section V-B.
        span: share of the run; 0 (the paper) switches the smaller limit off.
    """
    shorter = max(0.0, 1 - 1 / (span * total)) if span else limit
    return min(1 - 1 / (step + 1), limit, shorter)
