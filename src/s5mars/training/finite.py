"""End a run whose loss is no longer finite, and keep its last checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor

from s5mars.errors import UserError
from s5mars.parallel import distributed
from s5mars.training.environment import is_full_precision
from s5mars.training.module import SegmentationModule


class NotFiniteError(UserError):
    """The loss or the weights are not finite."""


def require_finite_losses(module: SegmentationModule) -> None:
    """Check the losses since the last validation.

    Raises:
        NotFiniteError: if one is not finite.
    """
    _refuse(module, _losses(module))


def require_finite(module: SegmentationModule) -> None:
    """Check losses and weights; all processes call this before anything is saved.

    Raises:
        NotFiniteError: if something is not finite.
    """
    finite = [parameter.isfinite().all() for parameter in module.parameters()]
    for network in filter(None, (module.student, module.teacher)):
        # Attention masks may hold infinities.
        finite += [~buffer.isnan().any() for buffer in network.buffers()]
    _refuse(module, _losses(module) | {"weights": torch.stack(finite).all()})


def _refuse(module: SegmentationModule, finite: dict[str, Tensor]) -> None:
    if not finite:
        return
    wrong = distributed.total((~torch.stack(list(finite.values()))).long()).tolist()
    named = [name for name, number in zip(finite, wrong, strict=True) if number]
    if not named:
        return
    precision = "" if is_full_precision(module.config) else " or with --precision fp32"
    raise NotFiniteError(
        f"the loss is not finite at step {module.step} ({', '.join(named)}): train "
        f"again with a smaller --learning-rate (it is {module.config.learning_rate:g}){precision}"
    )


def _losses(module: SegmentationModule) -> dict[str, Tensor]:
    """Name → whether the sum since the last validation is finite; a NaN stays in a sum."""
    sums = {
        name.removeprefix("terms/"): value
        for name, value in module.sums.starting_with("loss", "terms/")
    }
    return {name: value.isfinite().all() for name, value in sums.items()}
