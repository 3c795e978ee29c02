"""Going through many images with threads, in order, with a progress bar and bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

_QUIET_BELOW = 50  # fewer images than this are done before anybody looks at a bar


def map_images(
    function: Callable[[Item], Result], items: Sequence[Item], *, description: str
) -> Iterator[Result]:
    """Yield ``function(item)`` in the order of the items; at most a few results wait in memory.

    Threads suffice: Pillow and numpy let go of the interpreter lock while they decode and count.
    """
    workers = min(8, os.cpu_count() or 1)
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(
            total=len(items),
            desc=description,
            unit="image",
            disable=True if len(items) < _QUIET_BELOW else None,  # None: only on a terminal
        ) as bar,
    ):
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
                    bar.update()
            while waiting:
                yield waiting.popleft().result()
                bar.update()
        finally:
            for future in waiting:
                future.cancel()
