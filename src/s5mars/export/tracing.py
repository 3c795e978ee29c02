"""Computations of timm that a trace would fix to the size of its example, in traceable form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from timm.layers import pos_embed_sincos
from timm.models import eva, mobilevit, vision_transformer
from torch import Tensor

from s5mars.export.positions import resampled


@contextmanager
def traceable() -> Iterator[None]:
    """Within it, encoders of timm compute with sizes that a trace records."""
    replacements: tuple[tuple[Any, str, Any], ...] = (
        (vision_transformer, "resample_abs_pos_embed", resampled),
        (eva, "resample_abs_pos_embed", resampled),
        (pos_embed_sincos, "_rope_layout", rope_layout),
        # It rounds sizes up to whole patches, and resizes if that changes them. The trace contains
        # the resizing, because the example has odd sizes; it does nothing to sizes that are whole.
        (mobilevit, "math", SimpleNamespace(ceil=_ceil)),
    )
    # Versions of timm differ in private names; ``write_onnx`` checks what it wrote.
    replacements = tuple(entry for entry in replacements if hasattr(entry[0], entry[1]))
    originals = [getattr(module, name) for module, name, _ in replacements]
    for module, name, replacement in replacements:
        setattr(module, name, replacement)
    try:
        yield
    finally:
        for (module, name, _), original in zip(replacements, originals, strict=True):
            setattr(module, name, original)


def rope_layout(x: Tensor, rotate_half: bool = False) -> Tensor:
    """Rotary positions as in timm, without ``repeat_interleave``, whose export is wrong."""
    if rotate_half:
        return torch.cat([x, x], dim=-1)
    return torch.stack([x, x], dim=-1).flatten(-2)


def _ceil(x: Any) -> Any:
    return torch.ceil(x).long() if isinstance(x, Tensor) else math.ceil(x)
