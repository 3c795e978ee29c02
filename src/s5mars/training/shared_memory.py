"""Limits the loader processes to the shared memory that is free; containers often have little.

If shared memory is full, a process of torch's loader loses a batch silently, and training waits
forever. So the number of prefetched batches is limited to the free space, and a process that finds
no space exits.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing.queues
import os
import shutil
import sys
import tempfile
from pathlib import Path

PLACE = Path("/dev/shm")
PREFETCH = 4
"""Number of batches that a process prefetches."""

IN_USE = 2
"""Number of received batches in memory: the current one and the next."""

NO_ROOM = errno.ENOSPC
"""Exit status of a loader process that found no space for its batch."""

MORE_ROOM = "give a container more with `docker run --shm-size 2g`"

logger = logging.getLogger("s5mars")


def fitting_workers(workers: int, *, batch_bytes: int, sharing: int = 1) -> tuple[int, int]:
    """Number of loader processes that fit into shared memory, and of batches each prefetches.

    First the batches are reduced, then the processes, down to none, with a warning. ``sharing`` is
    the number of training processes on this machine.
    """
    if not workers:
        return 0, 0
    free = _free() / sharing
    room = int(min(free / batch_bytes - IN_USE, PREFETCH * workers))
    ahead = max(1, room // workers)
    kept = max(0, min(workers, room))
    if (kept, ahead) != (workers, PREFETCH):
        readers = f"{kept} of {workers} loader processes are used, with {ahead} batches each"
        logger.warning(
            "%s has %.0f MB free, and a batch takes %.1f MB: %s; %s",
            PLACE,
            free / 1e6,
            batch_bytes / 1e6,
            readers if kept else "the training process reads the data itself",
            MORE_ROOM,
        )
    return kept, ahead if kept else 0


def end_without_room() -> None:
    """Make a loader process exit if it cannot send a batch; the training process notices."""
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]


def _end(error: BaseException, _item: object) -> None:
    os._exit(NO_ROOM)


def _free() -> float:
    """Free bytes; only Linux reports a limit."""
    if sys.platform != "linux":
        return float("inf")
    try:
        with tempfile.TemporaryFile(dir=PLACE):
            return shutil.disk_usage(PLACE).free
    except OSError:  # it does not exist or is read-only
        return 0
