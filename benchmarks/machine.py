"""Description of the machine that a benchmark runs on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from s5mars.training.environment import has_amx


def machine() -> dict[str, object]:
    """Processor, its instruction sets, threads, load, versions, and the GPU if there is one."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    lines = text.splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(names) or None,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "amx": has_amx(),
        "vnni": "avx512_vnni" in text or "avx_vnni" in text,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gpus": gpus,
        "platform": platform.platform(),
        "torch": str(torch.__version__),
    }
