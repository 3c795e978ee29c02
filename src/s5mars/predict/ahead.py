"""Doing work ahead of its use, in threads, in order, and never more than a few items of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int = 2,
    alone: Callable[[Item], bool] | None = None,
) -> Iterator[Result]:
    """Yield ``work(item)`` in order, with the next ``workers`` items under way meanwhile.

    Decoding an image releases Python's lock, so threads are enough. Memory is bounded: at most
    ``workers`` results wait. An item for which ``alone`` says so is worked on when no other result
    waits, and none is begun before its own is taken: for items that fill the memory by themselves.
    An error of ``work`` is raised where its result would have been.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                single = alone is not None and alone(item)
                while single and waiting:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(work, item))
                while len(waiting) > (0 if single else workers):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
