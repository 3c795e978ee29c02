"""Format numbers; an unknown value is shown as a dash."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

UNKNOWN = "–"


def at(tree: object, *path: str) -> Any:
    """The value at a path of keys; None if a key or a mapping on the way is missing."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def number(value: object) -> float | None:
    """Return a finite float, or None for anything else (NaN, infinity, None, text)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def score(value: object, *, digits: int = 2) -> str:
    """``51.256`` → ``"51.26"``."""
    found = number(value)
    return UNKNOWN if found is None else f"{found:.{digits}f}"


def count(value: object) -> str:
    """``12345678`` → ``"12,345,678"``."""
    found = number(value)
    return UNKNOWN if found is None else f"{round(found):,}"


def share(part: object, whole: object) -> str:
    """``(20, 160)`` → ``"12.5 %"``."""
    above, below = number(part), number(whole)
    if above is None or not below:
        return UNKNOWN
    percent = 100 * above / below
    digits = 0 if percent == round(percent) else 1 if percent >= 1 else 2
    return f"{percent:.{digits}f}\u202f%"


def duration(seconds: object) -> str:
    """``3725`` → ``"1 h 2 min"``."""
    found = number(seconds)
    if found is None:
        return UNKNOWN
    if round(found) < 60:
        return f"{found:.0f} s"
    minutes = round(found / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def plural(amount: int, singular: str, many: str | None = None) -> str:
    """``(1, "image")`` → ``"1 image"``, ``(2, "image")`` → ``"2 images"``.

    ``many`` is given where a verb follows, as in ``(2, "image is", "images are")``.
    """
    return f"{count(amount)} {singular if amount == 1 else many or singular + 's'}"


def interval(value: object) -> tuple[float, float] | None:
    """``[low, high]`` → ``(low, high)``; None if an end is unknown."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)
