"""Processes that a test may kill, forked from a server that has imported everything once.

``python -m s5mars`` imports for four seconds before it trains. ``test_cli.py`` starts it so.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

# Loaded once, by the server.
import s5mars.predict
import s5mars.training.run
from s5mars.cli import main
from s5mars.methods import METHODS

_PRELOADED = (s5mars.predict, s5mars.training.run, METHODS)
gc.freeze()  # a collection in a forked process would visit, and thereby copy, all of it
gc.set_threshold(20_000, 20, 20)


def start(work: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start a function of a module in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=work, args=arguments)
    process.start()
    return process


def start_command(
    words: Sequence[str],
    *,
    out: Path | str = os.devnull,
    err: Path | str = os.devnull,
    before: Callable[[], object] | None = None,
) -> BaseProcess:
    """Start ``s5mars`` with these arguments.

    Args:
        words: the arguments.
        out: file for what it prints.
        err: file for its standard error.
        before: what the process does first, such as ``setrlimit``.
    """
    return start(_command, [str(word) for word in words], str(out), str(err), before)


class Ended(NamedTuple):
    """What became of a command."""

    code: int | None
    out: str
    err: str


def run_command(
    words: Sequence[str], folder: Path, *, before: Callable[[], object] | None = None
) -> Ended:
    """Run ``s5mars`` as ``start_command`` to its end, with its output in files of a folder."""
    out, err = folder / "said.out", folder / "said.err"
    process = start_command(words, out=out, err=err, before=before)
    process.join()
    return Ended(process.exitcode, out.read_text("utf-8"), err.read_text("utf-8"))


def _command(words: list[str], out: str, err: str, before: Callable[[], object] | None) -> None:
    sys.argv = ["s5mars", *words]
    # Its own processes start as those of ``s5mars`` do, and not from the server.
    multiprocessing.set_start_method(None, force=True)  # type: ignore[arg-type]
    with (
        Path(out).open("w", encoding="utf-8") as out_file,
        Path(err).open("w", encoding="utf-8", buffering=1) as err_file,
        redirect_stdout(out_file),
        redirect_stderr(err_file),
    ):
        if before is not None:
            before()
        raise SystemExit(main(words))
