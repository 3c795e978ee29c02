"""The processes of the loader: how they begin and end, and what their failures mean."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

import torch
from torch.utils.data import DataLoader

from s5mars.errors import UserError
from s5mars.parallel.workers import ended
from s5mars.training.loader import TrainingBatches
from s5mars.training.shared_memory import (
    MORE_ROOM,
    NO_ROOM,
    PLACE,
    end_without_room,
    fitting_workers,
)
from s5mars.types import Batch

PATIENCE_SECONDS = 600
"""Maximum time to wait for a batch before the loader counts as stuck."""


class LoaderError(UserError):
    """A loader process died or does not answer; the message says why and what to do."""


class _Loader(DataLoader[Batch]):
    """DataLoader that raises a ``LoaderError`` for all failures of its processes."""

    def __iter__(self) -> Any:
        with _sigterm_blocked():
            batches = super().__iter__()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                if reason := _failure(getattr(batches, "_workers", ()), error):
                    raise LoaderError(reason) from error
                raise
            yield batch


def _failure(workers: Sequence[Any], error: BaseException) -> str:
    """Why no batch came; empty if no process failed."""
    if str(error).startswith("DataLoader timed out"):
        return (
            f"no batch came for {PATIENCE_SECONDS // 60} minutes: check that the data can be read, "
            "or use fewer --workers"
        )
    if not str(error).startswith("Caught ") and workers:
        # The exit code may come later than the error, and a little later than the sentinel.
        ended_now = wait([worker.sentinel for worker in workers], timeout=10)
        for worker in workers:
            if worker.sentinel in ended_now:
                worker.join(timeout=10)
    codes = [worker.exitcode for worker in workers if worker.exitcode]
    return _exit_message(codes[0]) if codes else ""


def worker_failure(error: BaseException | None) -> str:
    """Why a loader process died, from the error that torch's signal handler raises; or empty.

    The handler can interrupt any call of the main thread. If the call then fails as well, for
    example in a ``finally``, the handler's error is in the context of that error.
    """
    if error is None:
        return ""
    found = re.match(
        r"DataLoader worker \(pid.+?\) (?:is killed by signal: (?P<signal>[^.]+)|"
        r"exited unexpectedly with exit code (?P<code>\d+))",
        str(error),
    )
    if not found:
        return worker_failure(error.__context__)
    if found["code"]:
        return _exit_message(int(found["code"]))
    numbers = {signal.strsignal(number): number for number in signal.valid_signals()}
    return _exit_message(-numbers.get(found["signal"], signal.SIGKILL))


def _exit_message(code: int) -> str:
    if code in (NO_ROOM, -signal.SIGBUS):
        return f"a loader process found no space in {PLACE}: use fewer --workers; {MORE_ROOM}"
    return f"a loader process {'was ' if code < 0 else ''}{ended(code)}: use fewer --workers"


def training_loader(
    batches: TrainingBatches, *, start: int, workers: int, sharing: int = 1
) -> DataLoader[Batch]:
    """Return a loader of the batches from step ``start`` on, in order.

    Fewer ``workers`` are used if shared memory is short; ``sharing`` is the number of training
    processes on this machine.
    """
    workers, ahead = fitting_workers(workers, batch_bytes=batches.bytes_each, sharing=sharing)
    return _Loader(
        batches,
        batch_size=None,
        sampler=range(start, len(batches)),
        num_workers=workers,
        persistent_workers=False,
        prefetch_factor=ahead or None,
        timeout=PATIENCE_SECONDS if workers else 0,
        worker_init_fn=_begin,
    )


_CAN_WAIT = hasattr(signal, "sigwaitinfo")  # not on macOS


@contextmanager
def _sigterm_blocked() -> Iterator[None]:
    """Block SIGTERM, also in all threads of the processes that are forked meanwhile.

    ``_begin`` would be too late: some libraries start threads in every forked process, which would
    take the signal.
    """
    if not _CAN_WAIT:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(_: int) -> None:
    torch.set_num_threads(1)
    end_without_room()
    if _CAN_WAIT:
        threading.Thread(target=_end_with_the_run, daemon=True).start()


def _end_with_the_run() -> None:
    """End this loader process at a SIGTERM of the training process, and of no other.

    ``timeout``, SLURM and systemd send SIGTERM to all processes of a command; the training process
    needs its loader processes until it has saved.
    """
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
