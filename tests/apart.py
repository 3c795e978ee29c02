"""Processes that a test may kill, forked from a server that has imported everything once.

``python -m s5mars`` imports for six seconds before it does anything. ``test_cli.py`` starts it so.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path

# Loaded once, by the server.
import s5mars.predict
import s5mars.training.run
from s5mars.cli import main
from s5mars.methods import METHODS

_PRELOADED = (s5mars.predict, s5mars.training.run, METHODS)


def start(work: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start a function of a module in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=work, args=arguments)
    process.start()
    return process


def start_command(words: Sequence[str]) -> BaseProcess:
    """Start ``s5mars`` with these arguments; what it prints is lost."""
    return start(_command, list(words))


def _command(words: list[str]) -> None:
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        raise SystemExit(main(words))
