"""Doing work ahead of its use, in threads, in order, and never more than a few items of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int = 2,
    waiting: int | None = None,
    alone: Callable[[Item], bool] | None = None,
) -> Generator[Result, None, None]:
    """Yield ``work(item)`` in order, with the next items under way meanwhile.

    Decoding an image releases Python's lock, so threads are enough; other work can be handed to
    processes (``parallel.workers``). Memory is bounded: at most ``waiting`` items (as many as
    ``workers`` unless given) are under way or wait for their turn. An item for which ``alone`` says
    so is worked on when no other result waits, and none is begun before its own is taken: for items
    that fill the memory by themselves. An error of ``work`` is raised where its result would have
    been. ``items`` are taken in the caller's thread.
    """
    most = workers if waiting is None else waiting
    with ThreadPoolExecutor(workers) as pool:
        queue: deque[Future[Result]] = deque()
        try:
            for item in items:
                single = alone is not None and alone(item)
                while single and queue:
                    yield queue.popleft().result()
                queue.append(pool.submit(work, item))
                while len(queue) > (0 if single else most):
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:
            for future in queue:
                future.cancel()
