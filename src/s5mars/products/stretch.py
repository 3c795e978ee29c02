"""From what a camera measured to 8 bits: named rules with a formula, nothing adaptive unsaid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from s5mars.errors import UserError

Rule = Literal["auto", "none", "linear", "sqrt", "percentile"]
RULES: tuple[Rule, ...] = ("auto", "none", "linear", "sqrt", "percentile")

FULL_SCALES = (255, 4095, 65535)
"""Largest values of 8-, 12- and 16-bit data."""

PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Stretch:
    """A rule with its numbers: the same numbers give the same bytes."""

    rule: Rule = "none"
    low: float = 0.0
    high: float = 255.0

    def __str__(self) -> str:
        """The formula."""
        if self.rule == "none":
            return "none: 8-bit values as delivered"
        share = f"clip((v - {self.low:g}) / {self.high - self.low:g}, 0, 1)"
        return f"{self.rule}: round(255 * {f'sqrt({share})' if self.rule == 'sqrt' else share})"

    def apply(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Any numeric array → uint8 of the same shape.

        Rounding is to the nearest, halves up. NaN becomes 0.
        """
        if self.rule == "none":
            return _rounded(values)
        if self.rule == "linear" and values.dtype.kind == "u" and self.low == 0:
            top = int(self.high)
            # Whole numbers throughout: exact, and a quarter of the memory of doubles.
            scaled = np.minimum(values, values.dtype.type(min(top, np.iinfo(values.dtype).max)))
            return _bytes((scaled.astype(np.uint32) * 255 + top // 2) // top)
        if self.high <= self.low:
            return np.zeros(values.shape, np.uint8)
        share = (values.astype(np.float32) - np.float32(self.low)) / np.float32(
            self.high - self.low
        )
        share = np.clip(np.nan_to_num(share, nan=0.0), 0, 1)
        return _rounded(255 * (np.sqrt(share) if self.rule == "sqrt" else share))


def choose(
    values: NDArray[Any],
    *,
    valid: NDArray[np.bool_] | None = None,
    full_scale: int | None = None,
    rule: Rule = "auto",
) -> Stretch:
    """Settle a rule's numbers for one image.

    - ``linear``: v → 255·v/top. ``top`` is the full scale that the label declares; without one
      the smallest of 255, 4095 and 65535 that no valid value exceeds.
    - ``sqrt``: v → 255·√(v/top), which is how the cameras' own 12-to-8-bit companding tables go.
    - ``percentile``: v → 255·(v − p₀.₅)/(p₉₉.₅ − p₀.₅) over the valid values of all channels.
    - ``none``: as they are.
    - ``auto``: ``none`` for 8-bit values; ``linear`` for whole numbers in 0..65535;
      ``percentile`` for all others (floating point, negative), which have no full scale.

    Args:
        values: the image, (H, W) or (H, W, C), whole numbers or floats.
        valid: (H, W) bool; None: all are.
        full_scale: largest value that the data can have, if a label says so.
        rule: one of ``RULES``.

    Raises:
        UserError: if the rule is unknown or cannot be had for such values.
    """
    if rule not in RULES:
        raise UserError(f"stretch {rule!r}: choose from {', '.join(RULES)}")
    counted = values if valid is None else values[valid]
    whole = values.dtype.kind in "ui" and counted.size > 0
    least, most = (int(counted.min()), int(counted.max())) if whole else (0, 0)
    scaled = whole and least >= 0 and most <= FULL_SCALES[-1]
    if rule == "auto":
        rule = "none" if values.dtype == np.uint8 else "linear" if scaled else "percentile"
    if rule == "none":
        if values.dtype != np.uint8 and not (scaled and most <= 255):
            raise UserError(f"stretch 'none' is for 8-bit values, not {values.dtype}")
        return Stretch()
    if rule == "percentile":
        low, high = np.percentile(counted, PERCENTILES) if counted.size else (0.0, 0.0)
        return Stretch("percentile", float(low), float(high))
    if not scaled:
        raise UserError(
            f"stretch {rule!r} is for whole numbers in 0..65535: take 'percentile' for this image"
        )
    top = next(limit for limit in (full_scale or FULL_SCALES[0], *FULL_SCALES) if most <= limit)
    return Stretch(rule, 0.0, float(top))


def _rounded(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "f":
        values = np.floor(values + np.float32(0.5))
    return _bytes(np.clip(values, 0, 255))


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    return values.astype(np.uint8)
