"""Sums and gathers tensors over the training processes.

Every process must call these functions in the same order, so no call may depend on the data of one
process. A single process gets its own tensor back.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor


def number() -> int:
    """Number of training processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Rank of this process, from 0."""
    return dist.get_rank() if number() > 1 else 0


@torch.no_grad()
def total(x: Tensor) -> Tensor:
    """Sum a tensor over the processes, without gradient."""
    if number() == 1:
        return x.detach()

    def reduced(sent: Tensor) -> Tensor:
        sent = sent.clone()
        dist.all_reduce(sent)
        return sent

    return _on_backend_device(x.detach(), reduced)


@torch.no_grad()
def joined(x: Tensor) -> Tensor:
    """Concatenate equal shapes (N, ...) of all processes in rank order to (number · N, ...)."""
    if number() == 1:
        return x.detach()

    def gathered(sent: Tensor) -> Tensor:
        parts = [torch.empty_like(sent) for _ in range(number())]
        dist.all_gather(parts, sent)
        return torch.cat(parts)

    # Not every backend supports bool.
    sent = x.detach().contiguous()
    return _on_backend_device(sent.byte() if x.dtype == torch.bool else sent, gathered).to(x.dtype)


def joined_rows(x: Tensor) -> Tensor:
    """As ``joined``, for different N; synchronises the device."""
    if number() == 1:
        return x.detach()
    lengths = joined(torch.tensor([len(x)])).tolist()
    padded = x.new_zeros((max(lengths), *x.shape[1:]))
    padded[: len(x)] = x.detach()
    parts = joined(padded.unsqueeze(0))
    return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)])


def _on_backend_device(x: Tensor, operation: Callable[[Tensor], Tensor]) -> Tensor:
    """Run a collective operation on the GPU if the backend is NCCL, which needs that."""
    moved = dist.get_backend() == "nccl" and x.device.type == "cpu"
    return operation(x.cuda() if moved else x).to(x.device)
