"""What works in processes of its own and may kill them; they import this file by its name."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from s5mars.predict.reading import Reader, start_reader
from s5mars.predict.sources import Source
from s5mars.proposals.build import Propose, _start


def start_work(number: int) -> Callable[[Any], Any]:
    """Does what its item says."""

    def work(item: Any) -> Any:
        print("noise that must not get among the answers")
        if item == "abort":
            os.abort()
        if item == "leave":
            os._exit(3)
        if item == "raise":
            raise FileNotFoundError("no such thing")
        if item == "who":
            return number, os.getpid(), os.environ["OMP_NUM_THREADS"]
        return np.full((50, 70, 3), item, np.uint8), np.zeros((0, 3)), "text"

    return work


def start_fragile_reader(number: int) -> Reader:
    """Reads, but files of some names kill it as a broken decoder or want of memory would."""
    read = start_reader(number)

    def fragile(source: Source) -> Any:
        if "abort" in source.path.name:
            os.abort()
        if "memory" in source.path.name:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(source)

    return fragile


def start_fragile_proposer(*arguments: Any) -> Propose:
    """Finds objects, but an image kills it as often as the file beside it has bytes."""
    propose = _start(*arguments)

    def fragile(image: Path) -> Any:
        left = image.with_suffix(".kills")
        if left.exists() and left.stat().st_size:
            left.write_bytes(left.read_bytes()[1:])
            os.kill(os.getpid(), signal.SIGKILL)
        return propose(image)

    return fragile
