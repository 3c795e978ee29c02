"""A Ray on this machine, or a place in a cluster that runs already."""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Literal, TypeVar, get_args

from s5mars.errors import UserError, first_line, needed
from s5mars.parallel.workers import CrashError

Engine = Literal["local", "ray"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def check_engine(engine: str, address: str | None) -> None:
    """Check the choice of an engine.

    Raises:
        UserError: if the engine is unknown, or another than Ray has an address.
    """
    if engine not in get_args(Engine):
        raise UserError(f"--engine must be one of {', '.join(get_args(Engine))} (got {engine!r})")
    if address is not None and engine != "ray":
        raise UserError("--address requires --engine ray")


@contextmanager
def connected(address: str | None, *, workers: int) -> Iterator[Any]:
    """Ray, connected; left again afterwards unless this process was connected before.

    Args:
        address: of a cluster, or ``"auto"`` for the one that runs here; None starts Ray on this
            machine, unless this process is connected already.
        workers: that will be at work at the same time.

    Raises:
        UserError: if Ray is not installed, or there is no cluster at the address.
    """
    ray = import_ray(loopback=address is None)
    started = _connect(ray, address, workers)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


class RayWorkers(Generic[Item, Result]):
    """As ``s5mars.parallel.workers.Processes``, with workers that Ray places; they end with it.

    Args:
        ray: the package, connected.
        start: gives the function that does the work; its number is always 0, because a worker of
            Ray sees no other GPU than its own.
        most: workers at the same time, each with a core.
        on_gpu: share the cluster's GPUs among them, if it has any.

    Raises:
        UserError: if the cluster has fewer cores.
    """

    def __init__(
        self, ray: Any, start: Callable[[int], Callable[[Item], Result]], *, most: int, on_gpu: bool
    ) -> None:
        there = ray.cluster_resources()
        if there.get("CPU", 0) < most:
            raise UserError(
                f"{most} workers, but Ray's cluster has {there.get('CPU', 0):g} cores: take fewer "
                "--workers"
            )
        gpus = min(1.0, there.get("GPU", 0) / most) if on_gpu else 0
        self._ray = ray
        self._make = ray.remote(_Worker).options(num_cpus=1, num_gpus=gpus).remote
        self._start = start
        self._places: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(most):
            self._places.put(None)

    def __call__(self, item: Item) -> Result:
        """The result for an item.

        Raises:
            CrashError: if the worker died over it.
            Exception: what the work raised.
        """
        worker = self._places.get()
        try:
            worker = worker or self._make(self._start)
            result: Result = self._ray.get(worker.work.remote(item))
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayActorError:
            worker = None
            raise CrashError("its worker of Ray died") from None
        finally:
            self._places.put(worker)
        return result


class _Worker:
    def __init__(self, start: Callable[[int], Callable[[Any], Any]]) -> None:
        self._start = start
        self._work: Callable[[Any], Any] | None = None

    def work(self, item: Any) -> Any:
        self._work = self._work or self._start(0)
        return self._work(item)


def import_ray(*, loopback: bool) -> Any:
    """The package; of one machine, it listens to no other."""
    # Before the import, which reads them: no statistics about users leave the machine, and a Ray
    # for one machine listens to no other.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if loopback:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray = needed("ray", extra="ray")
    needed("ray.data", extra="ray")
    return ray


def _connect(ray: Any, address: str | None, workers: int) -> bool:
    # Whether a Ray was started or joined, to be left again.
    if ray.is_initialized():
        return False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    settings: dict[str, object] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        settings |= {
            "include_dashboard": False,
            "num_cpus": max(workers + 1, os.cpu_count() or 1),
        }
    try:
        ray.init(address=address or "local", **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        place = address or "this machine"
        raise UserError(f"no Ray cluster at {place} ({first_line(error)})") from error
    return True
