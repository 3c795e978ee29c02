"""Bilinear upsampling with a fast backward pass on the CPU.

The backward pass of PyTorch's bilinear interpolation on the CPU works pixel by pixel. Interpolation
is linear and separable, so two products with small matrices compute the same, three times as fast
for logits, and autograd works as usual.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample(x: Tensor, size: tuple[int, int], *, training: bool) -> Tensor:
    """(B, C, h, w) → (B, C, H, W), as ``interpolate`` with ``align_corners=False``.

    Args:
        x: float, contiguous or channels-last; the result has the same memory format.
        size: H and W.
        training: whether a backward pass follows; if not, ``interpolate`` is used, also in exported
            graphs.
    """
    if x.shape[-2:] == size:
        return x
    plain = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not (training and plain and x.device.type == "cpu"):
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    rows, columns = (_weights(*lengths) for lengths in zip(x.shape[-2:], size, strict=True))
    if x.is_contiguous():
        return rows @ x @ columns.T
    batch, channels, _, width = x.shape
    tall = rows @ x.permute(0, 2, 3, 1).flatten(2)
    wide: Tensor = columns @ tall.view(batch, size[0], width, channels)
    return wide.permute(0, 3, 1, 2)


@lru_cache(maxsize=32)
def _weights(source: int, target: int) -> Tensor:
    """(target, source) interpolation weights."""
    with torch.inference_mode(False), torch.no_grad():  # the cache may serve training
        unit = torch.eye(source).unsqueeze(0)
        weights: Tensor = F.interpolate(unit, size=target, mode="linear", align_corners=False)[0].T
        return weights.contiguous()
