"""Which device to compute on."""

from __future__ import annotations

import torch

from s5mars.errors import UserError


def find_device(device: str | torch.device) -> torch.device:
    """``"auto"`` → the accelerator if there is one, else the CPU; other names are checked.

    Raises:
        UserError: if the name is unknown or the device is not there.
    """
    available = torch.accelerator.is_available()
    here = torch.accelerator.current_accelerator() if available else None
    if device == "auto":
        return here or torch.device("cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UserError(f"unknown device {device!r}: try auto, cpu, cuda or mps") from None
    number = torch.accelerator.device_count() if here and here.type == found.type else 0
    if found.type != "cpu" and (found.index or 0) >= number:
        there = f"cpu and {number} of {here.type}" if here else "only cpu"
        raise UserError(f"device {str(device)!r} is not there: this machine has {there}; use auto")
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the accelerator or the machine had no memory left.

    torch has a type for the first; of the machine's it says so in a RuntimeError of its allocator.
    """
    of_torch = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, of_torch) or "DefaultCPUAllocator" in str(error)


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A small tensor of this step's draws on the device, without waiting until it is there.

    Memory that is not pinned is copied aside before this returns, so that it may be reused.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")
