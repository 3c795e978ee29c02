"""Hardware settings of SAM, which change the speed and not the proposals."""

from __future__ import annotations

from dataclasses import dataclass, replace

from s5mars.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Hardware settings of one process; graph segmentation ignores them and uses one core."""

    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    points: int = 64  # prompts per pass of the decoder: more need more memory
    compile: bool = False  # compile the image encoder: about a minute, then faster

    def __post_init__(self) -> None:
        if self.points < 1:
            raise UserError(f"--points must be at least 1 (got {self.points})")

    def of_worker(self, number: int) -> Hardware:
        """Return the settings of one of several processes, distributed over the GPUs."""
        import torch

        if self.device not in {"auto", "cuda"} or not torch.cuda.is_available():
            return self
        return replace(self, device=f"cuda:{number % torch.cuda.device_count()}")
