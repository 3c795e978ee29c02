"""Temperature scaling of probabilities (Guo et al., ICML 2017).

Dividing logits z by a temperature T gives softmax(z / T) ∝ softmax(z)^(1/T). The second form needs
only probabilities, so it is applied after averaging over windows and flips: the ranking of the
classes of a pixel, and thus every label, is the same for every T, also on the seams. In a single
window it equals dividing the logits.
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
        (C, ...) float, sums to 1; the input itself for T = 1.
    """
    if temperature == 1:
        return probability
    # Divide by the largest first: powers of small numbers could all underflow to zero.
    powers = (probability / probability.amax(0)).pow_(1 / temperature)
    return powers.div_(powers.sum(0))


def tempered_largest(probability: Tensor, largest: Tensor, temperature: float) -> Tensor:
    """The maximum of ``tempered(probability, temperature)`` over the classes, in less memory.

    Args:
        probability: (C, ...) float, sums to 1 over the classes.
        largest: (...) maximum of ``probability`` over the classes.
        temperature: T > 0.
    """
    if temperature == 1:
        return largest
    return (probability / largest).pow_(1 / temperature).sum(0).reciprocal_()


def check_temperature(temperature: float) -> float:
    """Return the temperature as a float if it is valid.

    Raises:
        UserError: if it is not a finite number above 0.
    """
    if not 0 < temperature < float("inf"):
        raise UserError(f"temperature must be a finite number above 0 (got {temperature})")
    return float(temperature)
