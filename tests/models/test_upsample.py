"""Upsampling by products against PyTorch's interpolation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from s5mars.models.upsample import upsample

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(28, 32), (9, 24), (7, 16), (15, 8), (7, 8)])
def test_it_is_bilinear_interpolation(layout: torch.memory_format, size: tuple[int, int]) -> None:
    given = torch.randn(2, 3, 7, 8, generator=torch.Generator().manual_seed(0))
    ours, plain = (given.clone(memory_format=layout).requires_grad_() for _ in range(2))
    fast = upsample(ours, size, training=True)
    expected = F.interpolate(plain, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(fast, expected)
    assert fast.is_contiguous(memory_format=layout)
    weight = torch.rand(expected.shape, generator=torch.Generator().manual_seed(1))
    (fast * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad)


def test_outside_training_it_is_interpolation_itself() -> None:
    given = torch.randn(2, 3, 7, 8)
    expected = F.interpolate(given, size=(28, 32), mode="bilinear", align_corners=False)
    assert torch.equal(upsample(given, (28, 32), training=False), expected)


def test_weights_first_needed_without_gradients_serve_with_them() -> None:
    with torch.inference_mode():
        upsample(torch.randn(1, 1, 5, 5), (11, 11), training=True)
    given = torch.randn(1, 1, 5, 5, requires_grad=True)
    upsample(given, (11, 11), training=True).sum().backward()
    assert given.grad is not None
    torch.testing.assert_close(given.grad.sum(), torch.tensor(121.0))
