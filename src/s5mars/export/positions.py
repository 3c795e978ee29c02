"""Interpolation of position embeddings as matrix products, which ONNX can express at any size.

timm interpolates them with antialiased bicubic filters. ONNX has no such operator in the operator
set of ``graph.py``, and a trace would fix the size of the example. The filter is separable and its
weights are a polynomial of the distance, so they can be computed from the size inside the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_A = -0.5  # sharpness of torch's antialiased bicubic filter (without antialiasing it is -0.75)


def resampled(
    positions: Tensor,
    new_size: Sequence[Any],
    old_size: Sequence[int] | None = None,
    num_prefix_tokens: int = 1,
    **_: object,
) -> Tensor:
    """``timm.layers.resample_abs_pos_embed``, in products.

    Args:
        positions: (1, P + h·w, C).
        new_size: H and W; tensors in a trace.
        old_size: h and w; by default a square.
        num_prefix_tokens: P.

    Returns:
        (1, P + H·W, C).
    """
    prefix, grid = positions[:, :num_prefix_tokens], positions[:, num_prefix_tokens:]
    side = round(int(grid.shape[1]) ** 0.5)
    rows, columns = old_size or (side, side)
    grid = grid.reshape(int(rows), int(columns), -1).permute(2, 0, 1)
    down, across = (
        bicubic_weights(new, int(old)) for new, old in zip(new_size, (rows, columns), strict=True)
    )
    found = (down @ grid @ across.T).flatten(1).T.unsqueeze(0)
    return torch.cat([prefix, found], dim=1)


def bicubic_weights(new: Any, old: int) -> Tensor:
    """(new, old) weights of antialiased bicubic interpolation, as in ``interpolate``.

    Args:
        new: number of outputs; a tensor in a trace.
    """
    outputs = torch.arange(new, dtype=torch.float32)
    scale = old / torch.as_tensor(new, dtype=torch.float32)
    centres = (outputs + 0.5) * scale
    inputs = torch.arange(old, dtype=torch.float32) + 0.5
    x = (inputs - centres.unsqueeze(1)).abs() / scale.clamp(min=1)
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return weights / weights.sum(1, keepdim=True)
