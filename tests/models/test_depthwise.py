"""The dilated depthwise convolution equals PyTorch's own, gradients and state included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.models.depthwise import DilatedDepthwise, with_fast_dilation


def layer(*, kernel: int, dilation: int, channels: int = 4) -> nn.Conv2d:
    torch.manual_seed(0)
    padding = kernel // 2 * dilation
    return nn.Conv2d(
        channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=False
    ).double()


def answers(network: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    output = network(x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    gradients = torch.autograd.grad((weights * output**2).sum(), [x, *network.parameters()])
    return output, *gradients


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("dilation", [2, 3, 18])
@pytest.mark.parametrize("size", [(8, 8), (5, 9), (1, 1), (3, 30)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_output_and_gradients_equal_the_plain_convolution(
    kernel: int, dilation: int, size: tuple[int, int], memory_format: torch.memory_format
) -> None:
    plain = layer(kernel=kernel, dilation=dilation)
    x = torch.randn(2, 4, *size, dtype=torch.float64).contiguous(memory_format=memory_format)
    expected = answers(plain, x)
    holder = with_fast_dilation(nn.Sequential(layer(kernel=kernel, dilation=dilation)))
    assert isinstance(holder[0], DilatedDepthwise)  # type: ignore[index]
    for a, b in zip(answers(holder, x), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_only_the_gradients_that_are_asked_for() -> None:
    fast = with_fast_dilation(nn.Sequential(layer(kernel=3, dilation=2))).requires_grad_(False)
    x = torch.randn(1, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    fast(x).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in fast.parameters())


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),  # not dilated
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, bias=False),  # not depthwise
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4),  # with a bias
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, stride=2, bias=False),
        nn.Conv2d(4, 4, 3, padding=0, dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=4, bias=False),
    ],
)
def test_other_convolutions_stay(other: nn.Conv2d) -> None:
    assert with_fast_dilation(nn.Sequential(other))[0] is other  # type: ignore[index]


def test_the_light_network_uses_it_and_keeps_the_names_of_its_state() -> None:
    network = DeepLabV3Plus("tf_efficientnet_lite0", 3)
    fast = [name for name, part in network.named_modules() if isinstance(part, DilatedDepthwise)]
    assert any(name.startswith("encoder") for name in fast)
    assert sum(name.startswith("pyramid") for name in fast) == 3
    assert all(f"{name}.weight" in network.state_dict() for name in fast)
    assert all(not parameter.is_meta for parameter in network.parameters())
