"""Converts values to 8 bits by named rules with a stated formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from s5mars.errors import UserError, require_choice

Rule = Literal["auto", "none", "linear", "sqrt", "percentile"]
RULES: tuple[Rule, ...] = get_args(Rule)

FULL_SCALES = (255, 4095, 65535)
"""Maximum values of 8-, 12- and 16-bit data."""

PERCENTILES = (0.5, 99.5)

DARKEST = 3
"""What ``percentile`` makes of the darkest values other than 0: more than the level of pure black
in ``products.no_data``, so that a shadow at the edge is not taken for a border without data."""


@dataclass(frozen=True)
class Stretch:
    """A rule with its parameters."""

    rule: Rule = "none"
    low: float = 0.0
    high: float = 255.0

    def __str__(self) -> str:
        if self.rule == "none":
            return "none: 8-bit values as delivered"
        share = f"clip((v - {self.low:g}) / {self.high - self.low:g}, 0, 1)"
        level = f"round(255 * {f'sqrt({share})' if self.rule == 'sqrt' else share})"
        if self.rule == "percentile":
            level = f"max({DARKEST}, {level})" + ("; 0 where v = 0" if self.low >= 0 else "")
        return f"{self.rule}: {level}"

    def apply(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Convert a numeric array to uint8 of the same shape.

        Rounds to the nearest, halves up. NaN becomes 0.
        """
        if self.rule == "none":
            return _rounded(values)
        if self.rule == "linear" and values.dtype.kind == "u" and self.low == 0:
            top = int(self.high)
            # Integer arithmetic is exact and needs a quarter of the memory of doubles.
            scaled = np.minimum(values, values.dtype.type(min(top, np.iinfo(values.dtype).max)))
            return _bytes((scaled.astype(np.uint32) * 255 + top // 2) // top)
        if self.high <= self.low:
            return np.zeros(values.shape, np.uint8)
        with np.errstate(over="ignore"):  # missing values may be the smallest float
            share = (values.astype(np.float32) - np.float32(self.low)) / np.float32(
                self.high - self.low
            )
        share = np.clip(np.nan_to_num(share, nan=0.0), 0, 1)
        levels = _rounded(255 * (np.sqrt(share) if self.rule == "sqrt" else share))
        if self.rule == "percentile":
            black = np.isnan(values) | (values == 0) if self.low >= 0 else np.isnan(values)
            levels = np.where(black, 0, np.maximum(levels, np.uint8(DARKEST)))
        return levels


def choose(
    values: NDArray[Any],
    *,
    valid: NDArray[np.bool_] | None = None,
    full_scale: int | None = None,
    rule: Rule = "auto",
) -> Stretch:
    """Choose the parameters of a rule for one image.

    - ``linear``: v → 255·v/top. ``top`` is the full scale that the label declares, or the
      smallest of 255, 4095 and 65535 that no valid value exceeds.
    - ``sqrt``: v → 255·√(v/top), like the 12-to-8-bit companding tables of the cameras.
    - ``percentile``: v → 255·(v − p₀.₅)/(p₉₉.₅ − p₀.₅), at least ``DARKEST``, over the valid values
      of all channels; zeros stay black if p₀.₅ is not negative.
    - ``none``: v → v.
    - ``auto``: ``none`` for 8-bit values; ``linear`` for integers in 0..65535;
      ``percentile`` for all others (floating point, negative), which have no full scale.

    Args:
        values: Image (H, W) or (H, W, C), integers or floats.
        valid: (H, W) bool; all pixels are valid by default.
        full_scale: Largest value that the data can have, if the label declares it.
        rule: One of ``RULES``.

    Raises:
        UserError: if the rule is unknown or does not support such values.
    """
    require_choice(rule, RULES, name="stretch")
    counted = values if valid is None else values[valid]
    whole = values.dtype.kind in "ui" and counted.size > 0
    least, most = (int(counted.min()), int(counted.max())) if whole else (0, 0)
    scaled = whole and least >= 0 and most <= FULL_SCALES[-1]
    if rule == "auto":
        rule = "none" if values.dtype == np.uint8 else "linear" if scaled else "percentile"
    if rule == "none":
        if values.dtype != np.uint8 and not (scaled and most <= 255):
            raise UserError(f"stretch 'none' needs 8-bit values (got {values.dtype}): use 'auto'")
        return Stretch()
    if rule == "percentile":
        low, high = np.percentile(counted, PERCENTILES) if counted.size else (0.0, 0.0)
        return Stretch("percentile", float(low), float(high))
    if not scaled:
        raise UserError(
            f"stretch {rule!r} needs integers in 0..65535: use 'percentile' for this image"
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
