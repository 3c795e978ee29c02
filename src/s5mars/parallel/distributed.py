"""What the processes of a run find out together; a process that is alone has its own back.

Every process must call each of these, in the same order. So no call may depend on what one process
alone has seen.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor


def number() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The place of this one among them, from 0."""
    return dist.get_rank() if number() > 1 else 0


@torch.no_grad()
def total(x: Tensor) -> Tensor:
    """The sum over the processes; without a gradient."""
    if number() == 1:
        return x.detach()

    def reduced(sent: Tensor) -> Tensor:
        sent = sent.clone()
        dist.all_reduce(sent)
        return sent

    return _where_it_can(x.detach(), reduced)


@torch.no_grad()
def joined(x: Tensor) -> Tensor:
    """(N, ...) of each process → (number · N, ...), the first process's first; all of one shape."""
    if number() == 1:
        return x.detach()

    def gathered(sent: Tensor) -> Tensor:
        parts = [torch.empty_like(sent) for _ in range(number())]
        dist.all_gather(parts, sent)
        return torch.cat(parts)

    # Not every backend sends truth values.
    sent = x.detach().contiguous()
    return _where_it_can(sent.byte() if x.dtype == torch.bool else sent, gathered).to(x.dtype)


def joined_rows(x: Tensor) -> Tensor:
    """As ``joined``, for an N that differs; the device is waited for."""
    if number() == 1:
        return x.detach()
    lengths = joined(torch.tensor([len(x)])).tolist()
    padded = x.new_zeros((max(lengths), *x.shape[1:]))
    padded[: len(x)] = x.detach()
    parts = joined(padded.unsqueeze(0))
    return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)])


def _where_it_can(x: Tensor, operation: Callable[[Tensor], Tensor]) -> Tensor:
    """NCCL knows graphics memory only."""
    moved = dist.get_backend() == "nccl" and x.device.type == "cpu"
    return operation(x.cuda() if moved else x).to(x.device)
