"""The batch normalisation of several processes, as one process sees it: torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from s5mars.models.synchronised import synchronise

CPU = torch.device("cpu")


def networks(*, momentum: float | None = 0.1) -> tuple[nn.Sequential, nn.Sequential]:
    torch.manual_seed(0)
    own = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, momentum=momentum), nn.Conv2d(6, 5, 1),
        BatchNormAct2d(5), nn.BatchNorm2d(5, affine=False),
    )  # fmt: skip
    with torch.no_grad():
        for module in own.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-1, 1)
    synchronised = copy.deepcopy(own)
    synchronise(synchronised, CPU)
    return own, synchronised


def seen(network: nn.Module, image: Tensor) -> list[Tensor]:
    image = image.clone().requires_grad_()
    out = network(image)
    (out * torch.linspace(0, 1, out.numel()).view_as(out)).sum().backward()
    assert image.grad is not None
    return [out, image.grad, *(p.grad for p in network.parameters() if p.grad is not None)]


@pytest.mark.parametrize("momentum", [0.1, None])
def test_values_gradients_and_averages_are_torchs(momentum: float | None) -> None:
    own, synchronised = networks(momentum=momentum)
    random = torch.Generator().manual_seed(1)
    for _ in range(2):
        image = torch.randn(4, 3, 7, 6, generator=random) * 3 + 1
        for expected, found in zip(seen(own, image), seen(synchronised, image), strict=True):
            torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    assert own.state_dict().keys() == synchronised.state_dict().keys()
    for name, expected in own.state_dict().items():
        torch.testing.assert_close(synchronised.state_dict()[name], expected)
    own.eval()
    synchronised.eval()
    image = torch.randn(2, 3, 7, 6, generator=random)
    torch.testing.assert_close(synchronised(image), own(image), atol=1e-4, rtol=1e-4)


def test_a_kind_without_such_a_form_is_refused() -> None:
    with pytest.raises(ValueError, match="BatchNorm1d cannot be synchronised on cpu"):
        synchronise(nn.Sequential(nn.BatchNorm1d(3)), CPU)
