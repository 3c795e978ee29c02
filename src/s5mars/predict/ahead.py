"""Doing work ahead of its use, in threads, in order, and never more than a few items of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int = 2
) -> Iterator[Result]:
    """Yield ``work(item)`` in order, with the next ``workers`` items under way meanwhile.

    Decoding an image releases Python's lock, so threads are enough. Memory is bounded: at most
    ``workers`` results wait. An error of ``work`` is raised where its result would have been.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
