"""What proposals are computed with: it changes how long they take, not what they are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from s5mars.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Of one process. Graph segmentation takes one core and heeds none of this."""

    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    points: int = 64  # prompts in one pass of SAM's decoder: memory against speed
    compile: bool = False  # SAM's image encoder through torch.compile: a minute, then faster

    def __post_init__(self) -> None:
        if self.points < 1:
            raise UserError(f"{self.points} points in one pass: need at least 1")

    def of_worker(self, number: int) -> Hardware:
        """That of one of several processes: they take the GPUs in turn."""
        import torch

        if self.device not in {"auto", "cuda"} or not torch.cuda.is_available():
            return self
        return replace(self, device=f"cuda:{number % torch.cuda.device_count()}")
