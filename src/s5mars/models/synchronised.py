"""Batch normalisation over the images of all processes, so that a run does not depend on how many.

On graphics cards it is torch's own, which has no form for CPUs: there it is the one below. timm's
layers that end in an activation keep it, which torch's own conversion would drop.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn

from s5mars.errors import UserError
from s5mars.parallel import distributed


def synchronise(network: nn.Module, device: torch.device) -> None:
    """Let every batch normalisation within a network use the statistics of all processes.

    Parameters, buffers and their names stay as they are.

    Raises:
        UserError: for a kind of batch normalisation that has no such form on a CPU.
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
                f"{type(module).__name__} cannot be synchronised on {device.type}: train with one "
                "process, on graphics cards, or with another --model"
            )


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """``BatchNorm2d`` whose batch is that of all processes; each holds as many images."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return normalised(x, self) if self.training else super().forward(x)


class SynchronisedBatchNormAct(BatchNormAct2d):
    """timm's batch normalisation with an activation, likewise."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        if not self.training:
            return cast(Tensor, super().forward(x))  # type: ignore[no-untyped-call]
        return cast(Tensor, self.act(self.drop(normalised(x, self))))


def normalised(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    """What ``layer`` makes of (B, C, H, W) in training, its statistics moved as torch moves them.

    The variance is that of the centred values, in float32: a sum of squares would lose digits.
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
    """The sum over the processes, with a gradient: each process has a part in every one's loss."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return distributed.total(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return distributed.total(gradient)
