"""Versions, devices, precision and strategy of a run."""

from __future__ import annotations

import os
import platform
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import metadata
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from lightning_fabric.strategies.strategy import Strategy
from lightning_fabric.utilities.exceptions import MisconfigurationException

from s5mars.devices import device_of, find_device
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
_PACKAGES = ("s5mars", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow")


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


@contextmanager
def recorded_as(words: Sequence[str]) -> Iterator[None]:
    """Record the runs of a block as those of this command, in ``versions.json``."""
    before, sys.argv = sys.argv, ["s5mars", *words]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def kept_randomness() -> Iterator[None]:
    """Restore the random states of Python, NumPy and torch after a block that trains.

    A run seeds all of them for its layers. A script that draws random numbers between two runs,
    as for a random search, would draw the same ones each time.
    """
    python, of_numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    gpus = torch.cuda.get_rng_state_all() if used else None
    seeds = {name: os.environ.get(name) for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")}
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if gpus is not None:
            torch.cuda.set_rng_state_all(gpus)
        for name, value in seeds.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def choose_precision(asked: str, accelerator: str) -> LightningPrecision:
    """Lightning's name of the precision; ``auto`` is bf16 where the hardware supports it.

    On a CPU this needs AMX: without it, bf16 saves little or no time.
    """
    if asked == "auto":
        on_gpu = accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available()
        fast = torch.cuda.is_bf16_supported() if on_gpu else has_amx()
        asked = "bf16" if fast else "fp32"
    return _LIGHTNING[asked]


def is_full_precision(config: TrainConfig) -> bool:
    """Whether a run computes in fp32, as asked for or as ``auto`` chooses."""
    return choose_precision(config.precision, config.accelerator) == _LIGHTNING["fp32"]


def check_devices(config: TrainConfig) -> None:
    """Check devices, strategy and batch with Lightning before anything is written.

    Raises:
        UserError: if Lightning has no such accelerator, strategy or devices, if the device cannot
            compute with the precision, or if the batch does not divide among the processes.
    """
    if config.precision == "fp16" and device_kind(config.accelerator) == "cpu":
        # Lightning would use bf16.
        raise UserError("--precision fp16 needs a GPU; use fp32 or bf16 on a CPU")
    try:
        number = processes(config)
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        asked = ", ".join(
            f"{name} {getattr(config, name)}"
            for name in ("accelerator", "devices", "num_nodes", "strategy", "precision")
        )
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot train with {asked}: {reason}; omit these options to use the available devices"
        ) from error
    if config.batch % number:
        raise UserError(
            f"--batch must be a multiple of {number}, the number of processes (got {config.batch})"
        )
    if config.batch < 2 * number:
        # The pooled branch of the spatial pyramid has one value per image and channel, and images
        # are mixed within one process.
        raise UserError(
            f"--batch must be at least {2 * number} (got {config.batch}): batch normalisation and "
            "mixing need two images per process"
        )


def fabric_of(config: TrainConfig) -> Fabric:
    """Devices, processes and precision; a lost process is noticed after ``PATIENCE``."""
    several = config.strategy in {"auto", "ddp"} and processes(config) > 1
    return _fabric(config, DDPStrategy(timeout=PATIENCE) if several else config.strategy)


def device_kind(accelerator: str) -> str:
    """torch's kind of the device of a run, such as ``cpu`` or ``cuda``."""
    return find_device("auto").type if accelerator == "auto" else device_of(accelerator)


def processes(config: TrainConfig) -> int:
    """How many processes train together.

    Raises:
        ValueError: if they do not each have the whole network, or do not start as commands.
    """
    strategy = _fabric(config, config.strategy).strategy
    copied = isinstance(strategy, (SingleDeviceStrategy, DDPStrategy))
    if not copied or any(way in config.strategy for way in ("spawn", "fork", "notebook")):
        raise ValueError("only strategies of the kind ddp keep the whole network in each process")
    return int(getattr(strategy, "num_processes", 1)) * config.num_nodes


def _fabric(config: TrainConfig, strategy: Strategy | str) -> Fabric:
    return Fabric(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=strategy,
        precision=choose_precision(config.precision, config.accelerator),
    )


def has_amx() -> bool:
    """Whether the CPU has AMX units, which multiply bf16 matrices."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported and supported())
