"""Devices to compute on."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from s5mars.errors import UserError
from s5mars.text.numbers import plural


def find_device(device: str | torch.device) -> torch.device:
    """``"auto"`` → the accelerator if there is one, else the CPU; other names are checked.

    Raises:
        UserError: if the name is unknown or the device is not available.
    """
    available = torch.accelerator.is_available()
    here = torch.accelerator.current_accelerator() if available else None
    if device == "auto":
        return here or torch.device("cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UserError(f"device must be auto, cpu, cuda or mps (got {device!r})") from None
    number = torch.accelerator.device_count() if here and here.type == found.type else 0
    if found.type != "cpu" and (found.index or 0) >= number:
        there = f"cpu and {plural(number, f'{here.type} device')}" if here else "only cpu"
        raise UserError(
            f"device {str(device)!r} is not available: this machine has {there}; use auto"
        )
    return found


def device_of(accelerator: str) -> str:
    """Lightning's name of an accelerator → torch's name of the device."""
    return "cuda" if accelerator == "gpu" else accelerator


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the accelerator or the machine ran out of memory.

    torch has an exception for the first; for the second its allocator raises a RuntimeError.
    """
    of_torch = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, of_torch) or "DefaultCPUAllocator" in str(error)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Switch autocast off, for geometry and sums that half precision would round visibly."""
    return torch.autocast(device.type, enabled=False)


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a small tensor to the device without waiting for the copy.

    The source may be reused: memory that is not pinned is staged before this returns.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")
