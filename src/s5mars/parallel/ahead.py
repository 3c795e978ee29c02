"""Computes results ahead of their use, in threads, in order, and with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

from s5mars.parallel.cores import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

_QUIET_BELOW = 50  # fewer images are done before a progress bar is of use


def ahead(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int = 2,
    waiting: int | None = None,
    alone: Callable[[Item], bool] | None = None,
) -> Generator[Result, None, None]:
    """Yield ``work(item)`` in the order of the items, while threads compute the next results.

    Threads are enough because decoding an image releases Python's lock; ``work`` can hand other
    work to processes (``parallel.workers``). An exception of ``work`` is raised in place of its
    result.

    Args:
        work: Function that is called in a thread.
        items: Its arguments, which are taken in the caller's thread.
        workers: Number of threads.
        waiting: Number of results that are computed or kept ahead; ``workers`` by default.
        alone: Returns True for items that fill the memory by themselves. Such an item is computed
            while no other result waits, and the next one starts after its result is taken.
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
                del item  # it may be large, and making the next one may take as much memory
                while len(queue) > (0 if single else most):
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:
            for future in queue:
                future.cancel()


def map_images(
    work: Callable[[Item], Result], images: Sequence[Item], *, description: str
) -> Iterator[Result]:
    """``ahead`` with a thread for each usable core (at most 8) and a progress bar."""
    from tqdm import tqdm

    workers = min(8, usable_cores())
    quiet = True if len(images) < _QUIET_BELOW else None  # None: show it on terminals only
    with closing(ahead(work, images, workers=workers, waiting=4 * workers)) as results:
        yield from tqdm(results, total=len(images), desc=description, unit="image", disable=quiet)
