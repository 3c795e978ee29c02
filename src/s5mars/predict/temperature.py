"""Confidence that means something: probabilities softened by one number (Guo et al., ICML 2017).

Dividing logits z by a temperature T gives softmax(z / T) ∝ softmax(z)^(1/T). The second form needs
only probabilities, so it is applied after windows and flips were averaged: the order of the classes
of a pixel, and with it every label, is then the same for every T, on the seams, too. In a single
window it is exactly the division of the logits.
"""

from __future__ import annotations

from torch import Tensor

from s5mars.errors import UserError


def tempered(probability: Tensor, temperature: float) -> Tensor:
    """softmax(z / T) from softmax(z).

    Args:
        probability: (C, ...) float, sums to 1 over the classes.
        temperature: T > 0; above 1 softens, below 1 sharpens.

    Returns:
        (C, ...) float, sums to 1; the argument itself for T = 1.
    """
    if temperature == 1:
        return probability
    # Divided by the largest first: a power of small numbers alone could be zero everywhere.
    powers = (probability / probability.amax(0)).pow_(1 / temperature)
    return powers.div_(powers.sum(0))


def tempered_largest(probability: Tensor, largest: Tensor, temperature: float) -> Tensor:
    """The largest of ``tempered(probability, temperature)``, with one map less in memory.

    Args:
        probability: (C, ...) float, sums to 1 over the classes.
        largest: (...) its maximum over the classes.
        temperature: T > 0.
    """
    if temperature == 1:
        return largest
    return (probability / largest).pow_(1 / temperature).sum(0).reciprocal_()


def check_temperature(temperature: float) -> float:
    """The temperature itself.

    Raises:
        UserError: if it is not a finite number above 0.
    """
    if not 0 < temperature < float("inf"):
        raise UserError(f"a temperature of {temperature}: a number above 0 is needed")
    return temperature
