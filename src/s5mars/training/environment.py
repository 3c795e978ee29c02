"""What a run ran on."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import Literal

import torch

LightningPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]

_LIGHTNING: dict[str, LightningPrecision] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}
_PACKAGES = ("s5mars", "torch", "torchvision", "timm", "lightning", "numpy", "pillow")


def versions() -> dict[str, object]:
    """Versions, machine and command line, for ``versions.json``."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {
        "python": platform.python_version(),
        "packages": found,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "command": ["s5mars", *sys.argv[1:]],
    }


def choose_precision(asked: str, accelerator: str) -> LightningPrecision:
    """Lightning's name of the precision; ``auto`` takes bf16 where the hardware multiplies it.

    On a CPU that means AMX: without it bf16 saves memory traffic but little or no time.
    """
    if asked == "auto":
        on_gpu = accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available()
        fast = torch.cuda.is_bf16_supported() if on_gpu else _has_amx()
        asked = "bf16" if fast else "fp32"
    return _LIGHTNING[asked]


def _has_amx() -> bool:
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported and supported())
