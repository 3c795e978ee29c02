"""The processor cores that a process may use; nothing here needs torch."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Number of cores that this process may use, which containers and schedulers limit."""
    here = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return len(here) or os.cpu_count() or 1
