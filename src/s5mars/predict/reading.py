"""Read products in separate processes, so that a crash does not end the run.

Nothing here imports torch, so that such a process starts in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from s5mars.parallel.workers import CrashError, Processes
from s5mars.predict.sources import Source
from s5mars.products import open_product
from s5mars.products.errors import WAY_OUT
from s5mars.products.no_data import no_data


@dataclass(frozen=True)
class Failed:
    """A product that cannot be predicted."""

    source: Source
    reason: str  # one line that names the file


@dataclass(frozen=True)
class Read:
    """A decoded product."""

    source: Source
    image: NDArray[np.uint8]  # (H, W, 3)
    empty: NDArray[np.bool_]  # (H, W), no data
    info: Mapping[str, object] = field(default_factory=dict)  # metadata of the product


Reader = Callable[[Source], Read | Failed]


def read_product(source: Source) -> Read | Failed:
    """Decode a product; any error is recorded as its failure and does not stop the others."""
    try:
        product = open_product(source.path)
        empty = no_data(product.image)
        if product.valid is not None:
            empty |= ~product.valid
        return Read(source, product.image, empty, product.row())
    # Readers of planetary formats raise arbitrary exceptions.
    except Exception as error:
        return failed(source, error)


def start_reader(_number: int) -> Reader:
    """The function that a process of ``Readers`` runs."""
    return read_product


class Readers(Processes[Source, Read | Failed]):
    """``read_product`` in several processes; a product that kills its process has failed.

    A decoder that crashes on a broken file, or a file that takes all memory, cannot be caught in
    the same process. Call this from as many threads as there are processes.
    """

    def __init__(self, *, most: int, start: Callable[[int], Reader] = start_reader) -> None:
        super().__init__(start, most=most)

    def __call__(self, source: Source) -> Read | Failed:
        """The product, or the reason why it cannot be read."""
        try:
            return super().__call__(source)
        except CrashError as crash:
            return Failed(source, f"{source.path}: the reader crashed ({crash}): {WAY_OUT}")


def failed(source: Source, error: BaseException) -> Failed:
    """The error as one line that names the product."""
    path = " ".join(str(source.path).splitlines())
    said = str(error).replace(str(source.path), path)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if isinstance(error, MemoryError):
        text = "not enough memory"
    return Failed(source, text if path in text else f"{path}: {text}")
