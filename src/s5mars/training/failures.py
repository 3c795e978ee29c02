"""What ends a run early, in one line that says how to go on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from s5mars.devices import is_out_of_memory
from s5mars.errors import (
    REMEDY,
    DamagedFileError,
    MissingFileError,
    UserError,
    as_typed,
    first_line,
    raised_message,
)
from s5mars.files.run_folder import CONFIG, run_to_resume
from s5mars.training.environment import is_full_precision
from s5mars.training.finite import NotFiniteError
from s5mars.training.loader_processes import LoaderError, worker_failure
from s5mars.training.loop import Loop
from s5mars.training.lost import LOST, is_lost
from s5mars.training.streams import Streams


@contextmanager
def explained(loop: Loop, checkpoint: Path | None) -> Iterator[None]:
    """Turn known errors of a loop, which began at a checkpoint if any, into ``UserError``.

    Raises:
        UserError: if the loss is not finite, a process died, memory does not suffice, the
            checkpoint does not fit, or a file cannot be read.
        SystemExit: with ``LOST``, where another process reports the error.
    """

    def saved() -> str:
        # Until the checkpoint is loaded, nothing has changed.
        return "" if loop.saved_step is None and checkpoint is not None else loop.saved

    try:
        with readable(run_to_resume(loop.config.out), loop.record.streams, saved=saved):
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


@contextmanager
def readable(run: Path, streams: Streams, *, saved: Callable[[], str]) -> Iterator[None]:
    """Add what was saved, and how to resume, to the errors of files that cannot be read.

    ``--skip-bad`` leaves out images of the pool, but no labelled ones. Without a text of ``saved``
    the errors stay as they are.

    Raises:
        UserError: if a file is damaged or missing.
    """
    try:
        yield
    except (DamagedFileError, MissingFileError) as error:
        if not (known := saved()):
            raise
        text = raised_message(str(error))
        pool = {str(path) for sample in streams.pool or () for path in (sample.image, *sample.hide)}
        kept = {
            str(path)
            for sample in (*streams.labelled, *streams.selection)
            for path in (sample.image, sample.mask, *sample.hide)
        }
        skippable = isinstance(error, DamagedFileError) and any(p in text for p in pool - kept)
        remedy, option = "replace it", ""
        if skippable:
            remedy, option = "replace it, or leave it out with --skip-bad", " [--skip-bad]"
        raise UserError(
            f"{text.replace(REMEDY, remedy)}; {known}; resume with: s5mars train --resume "
            f"{as_typed(run)}{option}"
        ) from error


def _way_on(loop: Loop) -> str:
    """How to resume from before the loss diverged; the checkpoint fixes the learning rate."""
    if loop.saved_step is None or is_full_precision(loop.config):
        return loop.saved
    return f"set `precision: fp32` in {run_to_resume(loop.config.out) / CONFIG}; {loop.kept()}"
