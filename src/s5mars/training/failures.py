"""What ends a run early, in one line that says how to go on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s5mars.devices import is_out_of_memory
from s5mars.errors import UserError, first_line
from s5mars.files.run_folder import CONFIG
from s5mars.training.finite import NotFiniteError
from s5mars.training.loader_processes import LoaderError, worker_failure
from s5mars.training.loop import Loop
from s5mars.training.lost import LOST, is_lost


@contextmanager
def explained(loop: Loop, checkpoint: Path | None) -> Iterator[None]:
    """Turn known errors of a loop, which began at a checkpoint if any, into ``UserError``.

    Raises:
        UserError: if the loss is not finite, a process died, memory does not suffice, or the
            checkpoint does not fit.
        SystemExit: with ``LOST``, where another process reports the error.
    """
    try:
        yield
    except NotFiniteError as error:
        if not loop.fabric.is_global_zero:  # only the first process reports
            raise SystemExit(LOST) from error
        raise UserError(f"{error}; {_way_on(loop)}") from error
    except LoaderError as error:
        raise UserError(f"{error}; {loop.kept()}") from error
    except (RuntimeError, MemoryError) as error:
        if "loading state_dict" in str(error):
            raise UserError(
                f"{checkpoint} does not fit the network of these data and settings: they have "
                "changed, or another version wrote it; train again into another folder"
            ) from error
        if reason := worker_failure(error):
            raise UserError(f"{reason}; {loop.kept()}") from error
        if is_lost(error):
            message = loop.lost.message(error, first=loop.fabric.is_global_zero)
            if message and not loop.fabric.is_global_zero:
                print(file=sys.stderr)  # ends the line of the progress bar
            raise (UserError(message) if message else SystemExit(LOST)) from error
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory after step {loop.module.step} ({first_line(error)}): use a smaller "
            "--batch or --crop, or fewer --workers"
        ) from error


def _way_on(loop: Loop) -> str:
    """How to resume from before the loss diverged; the checkpoint fixes the learning rate."""
    if loop.saved_step is None or loop.config.precision == "fp32":
        return loop.saved
    return f"set `precision: fp32` in {loop.config.out / CONFIG}; {loop.kept()}"
