"""Batches travel from loader processes in shared memory; a container may have little of it.

Where it is full, a process of torch's loader loses a batch without a word, and training waits for
it for ever. So no more batches are under way than there is room for, and a process that finds none
ends.
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
"""Batches that a process works ahead."""

IN_USE = 2
"""Batches that have arrived and are not done with: one is trained on, one is the next."""

NO_ROOM = errno.ENOSPC
"""Exit status of a loader process that could not hand over its batch."""

MORE_ROOM = "a container has more with `docker run --shm-size 2g`"

logger = logging.getLogger("s5mars")


def affordable(workers: int, *, batch_bytes: int, sharing: int = 1) -> tuple[int, int]:
    """How many of the wanted loader processes there may be, and the batches that each works ahead.

    Fewer batches first, then fewer processes, then none; a line says so.

    Args:
        workers: that are wanted.
        batch_bytes: of one batch.
        sharing: training processes on this machine.
    """
    if not workers:
        return 0, 0
    free = _free() / sharing
    room = int(min(free / batch_bytes - IN_USE, PREFETCH * workers))
    ahead = max(1, room // workers)
    kept = max(0, min(workers, room))
    if (kept, ahead) != (workers, PREFETCH):
        readers = f"{kept} of {workers} loader processes, each {ahead} ahead,"
        logger.warning(
            "%s has %.0f MB free, and a batch takes %.1f MB: %s can read them; %s",
            PLACE,
            free / 1e6,
            batch_bytes / 1e6,
            readers if kept else "only the training process itself",
            MORE_ROOM,
        )
    return kept, ahead if kept else 0


def end_without_room() -> None:
    """In a loader process: end where a batch cannot be handed over, which the others notice."""
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]


def _end(error: BaseException, _item: object) -> None:
    os._exit(NO_ROOM)


def _free() -> float:
    """Bytes; only Linux has a limit that can be asked for."""
    if sys.platform != "linux":
        return float("inf")
    try:
        with tempfile.TemporaryFile(dir=PLACE):
            return shutil.disk_usage(PLACE).free
    except OSError:  # not there, or read-only
        return 0
