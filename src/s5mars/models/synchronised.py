"""Batch normalisation over all processes, so that results do not depend on their number.

On GPUs this is torch's own, which does not support CPUs; those use the classes below. timm's layers
keep their activation, which torch's conversion would drop.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn

from s5mars.errors import UserError
from s5mars.parallel import distributed


def synchronise(network: nn.Module, device: torch.device) -> None:
    """Make every batch normalisation of a network use the statistics of all processes.

    Parameters, buffers and their names do not change.

    Raises:
        UserError: if a kind of batch normalisation is not supported on a CPU.
    """
    if device.type == "cuda":
        convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronisedBatchNorm
        elif type(module) is BatchNormAct2d:
            module.__class__ = SynchronisedBatchNormAct
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise UserError(
                f"{type(module).__name__} cannot be synchronised on {device.type}; train with one "
                "process, on GPUs, or with another --model"
            )


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """``BatchNorm2d`` over all processes, each with the same number of images."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return normalised(x, self) if self.training else super().forward(x)


class SynchronisedBatchNormAct(BatchNormAct2d):
    """timm's batch normalisation with an activation, over all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        if not self.training:
            return cast(Tensor, super().forward(x))  # type: ignore[no-untyped-call]
        return cast(Tensor, self.act(self.drop(normalised(x, self))))


def normalised(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    """Output of ``layer`` for (B, C, H, W) in training; updates running statistics as torch does.

    The variance is computed from centred values in float32: a sum of squares would lose digits.
    """
    wide = x.float()
    count = x.numel() // x.shape[1] * distributed.number()
    mean = _Sum.apply(wide.sum((0, 2, 3))) / count
    centred = wide - mean.view(1, -1, 1, 1)
    variance = _Sum.apply(centred.square().sum((0, 2, 3))) / count
    if layer.track_running_stats and layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        momentum = layer.momentum
        share = 1 / float(layer.num_batches_tracked) if momentum is None else momentum
        with torch.no_grad():
            cast(Tensor, layer.running_mean).lerp_(mean, share)
            cast(Tensor, layer.running_var).lerp_(variance * (count / max(1, count - 1)), share)
    gain = (variance + layer.eps).rsqrt()
    if layer.affine:
        gain = gain * layer.weight
        centred = centred * gain.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)
    else:
        centred = centred * gain.view(1, -1, 1, 1)
    normal: Tensor = centred.to(x.dtype)
    return normal


class _Sum(torch.autograd.Function):
    """Differentiable sum over processes: each process contributes to the loss of every other."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return distributed.total(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return distributed.total(gradient)
