"""What a benchmark ran on."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from s5mars.training.environment import has_amx


def machine() -> dict[str, object]:
    """Processor, its units, threads, versions, and the GPU where there is one."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(names) or None,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "amx": has_amx(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "platform": platform.platform(),
        "torch": str(torch.__version__),
    }
