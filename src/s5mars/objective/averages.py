"""A bias-corrected running average."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s5mars.parallel import distributed


class RunningMean(nn.Module):
    """An exponential moving average of means over pixels, saved in every checkpoint.

    It starts at 0 and is divided by the total weight, 1 − mᵗ after t steps, which removes the bias
    towards the start (Kingma and Ba, ICLR 2015, section 3); the momentum m is in [0, 1).
    """

    weighted: Tensor
    weight: Tensor

    def __init__(self, *shape: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("weighted", torch.zeros(shape))
        self.register_buffer("weight", torch.tensor(0.0))

    @torch.no_grad()
    def update(self, summed: Tensor, count: Tensor) -> None:
        """Update the average with a sum over this process's pixels and their number.

        A batch without pixels in any process changes nothing.
        """
        summed, count = distributed.total(summed), distributed.total(count)
        share = (1 - self.momentum) * (count > 0)
        mean = (summed / count.clamp(min=1)).to(self.weighted.dtype)
        self.weighted.lerp_(mean, share)
        self.weight.lerp_(torch.ones_like(self.weight), share)

    @property
    def value(self) -> Tensor:
        """The average; 0 if nothing has been observed."""
        return self.weighted / self.weight.clamp(min=1e-12)

    @property
    def is_empty(self) -> Tensor:
        """Scalar bool: whether nothing has been observed."""
        return self.weight == 0
