"""A queue of pixel embeddings for each class, the negatives of the contrastive loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5mars.parallel import distributed


class MemoryBank(nn.Module):
    """First-in, first-out queues, saved in every checkpoint.

    Embeddings are kept as unit vectors in float16: only directions are compared, and it
    halves the memory. In a distributed run every process pushes the embeddings of all of them,
    so that their banks are the same.

    Args:
        size: largest length of the queue of a class, at least 1.
        first_size: the same for class 0.
    """

    def __init__(self, *, size: int, first_size: int) -> None:
        super().__init__()
        self.size = size
        self.first_size = first_size
        self._queues: dict[int, Tensor] = {}

    @torch.no_grad()
    def push(self, label: int, embedding: Tensor) -> None:
        """Append (N, D) embeddings to the queue of a class, and drop the oldest of a full queue."""
        new = F.normalize(embedding[-self.longest(label) :].float(), dim=1).half()
        new = distributed.joined_rows(new)[-self.longest(label) :]
        old = self._queues.get(label, new[:0]).to(new.device)
        surplus = max(0, len(old) + len(new) - self.longest(label))
        self._queues[label] = torch.cat([old[surplus:], new])

    def queue(self, label: int) -> Tensor:
        """(N, D) float16 unit vectors of a class, the oldest first; N is 0 at the start."""
        return self._queues.get(label, torch.empty(0, 0, dtype=torch.float16))

    def longest(self, label: int) -> int:
        """Largest length of the queue of a class."""
        return self.first_size if label == 0 else self.size

    def get_extra_state(self) -> dict[int, Tensor]:
        """For ``state_dict``."""
        return {label: queue.cpu() for label, queue in sorted(self._queues.items())}

    def set_extra_state(self, state: dict[int, Tensor]) -> None:
        """For ``load_state_dict``."""
        self._queues = dict(state)
