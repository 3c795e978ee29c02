"""Versions, devices, precision and strategy of a run."""

from __future__ import annotations

import platform
import sys
from datetime import timedelta
from importlib import metadata
from typing import Literal

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy, Strategy

from s5mars.devices import find_device
from s5mars.errors import UserError
from s5mars.settings.config import TrainConfig

LightningPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]

PATIENCE = timedelta(minutes=10)
"""Timeout of collectives; steps and saves take less."""

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
    """Lightning's name of the precision; ``auto`` is bf16 where the hardware supports it.

    On a CPU this needs AMX: without it, bf16 saves little or no time.
    """
    if asked == "auto":
        on_gpu = accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available()
        fast = torch.cuda.is_bf16_supported() if on_gpu else has_amx()
        asked = "bf16" if fast else "fp32"
    return _LIGHTNING[asked]


def choose_strategy(config: TrainConfig) -> Strategy | str:
    """Lightning's strategy; DDP gets a shorter timeout, so that a lost process is noticed."""
    if config.strategy not in {"auto", "ddp"} or _trainer(config).world_size == 1:
        return config.strategy
    return DDPStrategy(timeout=PATIENCE)


def check_devices(config: TrainConfig) -> None:
    """Check devices, strategy and batch with Lightning before anything is written.

    Raises:
        UserError: if Lightning has no such accelerator, strategy or devices, or if the batch does
            not divide among them.
    """
    try:
        trainer = _trainer(config)
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        asked = ", ".join(
            f"{name} {getattr(config, name)}"
            for name in ("accelerator", "devices", "num_nodes", "strategy", "precision")
        )
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot train with {asked}: {reason}; omit these options to use the available devices"
        ) from error
    processes = trainer.world_size
    if config.batch % processes:
        raise UserError(
            f"batch must be a multiple of {processes}, the number of processes (got {config.batch})"
        )
    if config.batch < 2 * processes:
        # The pooled branch of the spatial pyramid has one value per image and channel, and images
        # are mixed within one process.
        raise UserError(
            f"batch must be at least {2 * processes} (got {config.batch}): batch normalisation and "
            "mixing need two images per process"
        )


def _trainer(config: TrainConfig) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=config.strategy,
        precision=choose_precision(config.precision, config.accelerator),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def device_kind(accelerator: str) -> str:
    """torch's kind of the device of a run, such as ``cpu`` or ``cuda``."""
    if accelerator == "auto":
        return find_device("auto").type
    return "cuda" if accelerator == "gpu" else accelerator


def processes(config: TrainConfig) -> int:
    """How many processes train together."""
    return int(_trainer(config).world_size)


def has_amx() -> bool:
    """Whether the CPU has AMX units, which multiply bf16 matrices."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported and supported())
