"""Dilated depthwise convolution with a fast backward pass on the CPU.

Encoders such as EfficientNet keep output stride 16 by dilating their last depthwise convolutions.
PyTorch's CPU library has a fast forward kernel for these, but a slow generic one for the gradients.
Both gradients have a closed form: for the input, a convolution with the flipped kernel; for the
kernel, one sum of products per tap.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DilatedDepthwise(nn.Conv2d):
    """A size-preserving depthwise ``Conv2d`` of stride 1: same parameters, same results."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (its name in Conv2d)
        """(B, C, H, W) → (B, C, H, W)."""
        plain = input.dtype == self.weight.dtype and not torch.is_autocast_enabled("cpu")
        if not (self.training and plain and input.device.type == "cpu"):
            return super().forward(input)
        output: Tensor = _Convolution.apply(input, self.weight, self.dilation)
        return output


def with_fast_dilation(module: nn.Module) -> nn.Module:
    """Replace every convolution of a module that ``DilatedDepthwise`` can compute, in place.

    Parameters stay the same objects, so the state dict does not change.
    """
    for name, child in list(module.named_children()):
        if type(child) is nn.Conv2d and _is_dilated_depthwise(child):
            setattr(module, name, _same_weights(child))
        else:
            with_fast_dilation(child)
    return module


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _convolve(x, weight, dilation)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _convolve(gradient, weight.flip(2, 3), ctx.dilation)
        if ctx.needs_input_grad[1]:
            of_weight = _kernel_gradient(x, gradient, weight, ctx.dilation)
        return of_x, of_weight, None


def _kernel_gradient(x: Tensor, gradient: Tensor, weight: Tensor, dilation: Any) -> Tensor:
    """For each tap, the sum over images and positions of the shifted input times the gradient."""
    # Channels last: shifted windows are then read in long contiguous runs.
    x, gradient = x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    result = torch.zeros_like(weight)
    for i in range(weight.shape[2]):
        rows, of_rows = _overlap((i - weight.shape[2] // 2) * dilation[0], x.shape[1])
        for j in range(weight.shape[3]):
            columns, of_columns = _overlap((j - weight.shape[3] // 2) * dilation[1], x.shape[2])
            product = x[:, rows, columns] * gradient[:, of_rows, of_columns]
            result[:, 0, i, j] = product.sum((0, 1, 2))
    return result


def _overlap(shift: int, length: int) -> tuple[slice, slice]:
    """Overlap of a line with its shifted copy: slices of the line and of the copy."""
    if abs(shift) >= length:
        return slice(0, 0), slice(0, 0)
    return slice(max(shift, 0), length + min(shift, 0)), slice(
        max(-shift, 0), length - max(shift, 0)
    )


def _convolve(x: Tensor, weight: Tensor, dilation: tuple[int, int]) -> Tensor:
    padding = [size // 2 * step for size, step in zip(weight.shape[2:], dilation, strict=True)]
    return F.conv2d(x, weight, None, 1, padding, dilation, len(weight))


def _is_dilated_depthwise(layer: nn.Conv2d) -> bool:
    kept = tuple(
        size // 2 * step for size, step in zip(layer.kernel_size, layer.dilation, strict=True)
    )
    return (
        layer.groups == layer.in_channels == layer.out_channels
        and max(layer.dilation) > 1
        and tuple(layer.stride) == (1, 1)
        and all(size % 2 for size in layer.kernel_size)
        and tuple(layer.padding) == kept
        and layer.padding_mode == "zeros"
        and layer.bias is None
    )


def _same_weights(layer: nn.Conv2d) -> DilatedDepthwise:
    with torch.device("meta"):  # its own weights are never allocated
        fast = DilatedDepthwise(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            padding=layer.padding,  # type: ignore[arg-type]
            dilation=layer.dilation,  # type: ignore[arg-type]
            groups=layer.groups,
            bias=False,
        )
    fast.weight = layer.weight
    fast.train(layer.training)
    return fast
