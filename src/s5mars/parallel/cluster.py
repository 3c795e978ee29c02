"""Starts Ray on this machine, or connects to a running Ray cluster."""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Literal, TypeVar, get_args

from s5mars.errors import UserError, first_line, needed, require_choice
from s5mars.parallel.cores import usable_cores
from s5mars.parallel.workers import CrashError

Engine = Literal["local", "ray"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def check_engine(engine: str, address: str | None) -> None:
    """Check the choice of an engine.

    Raises:
        UserError: if the engine is unknown, or another than Ray has an address.
    """
    require_choice(engine, get_args(Engine), name="--engine")
    if address is not None and engine != "ray":
        raise UserError("--address requires --engine ray")


@contextmanager
def connected(address: str | None, *, workers: int) -> Iterator[Any]:
    """Yield the package ray, connected; disconnects afterwards if it connected.

    Args:
        address: Address of a cluster, or ``"auto"`` for the cluster that runs on this machine;
            None starts Ray on this machine, unless this process is already connected.
        workers: Number of workers that will run at the same time.

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
    """As ``s5mars.parallel.workers.Processes``, with workers of Ray.

    Args:
        ray: Package ray, connected.
        start: Returns the function that does the work. The number of the process is always 0,
            because a worker of Ray sees only its own GPU.
        most: Number of workers, each with one core.
        on_gpu: Divide the GPUs of the cluster, if it has any, among the workers.

    Raises:
        UserError: if the cluster has fewer cores than workers.
    """

    def __init__(
        self, ray: Any, start: Callable[[int], Callable[[Item], Result]], *, most: int, on_gpu: bool
    ) -> None:
        there = ray.cluster_resources()
        if there.get("CPU", 0) < most:
            raise UserError(
                f"--workers must be at most {there.get('CPU', 0):g}, the number of cores in Ray's "
                f"cluster (got {most})"
            )
        gpus = min(1.0, there.get("GPU", 0) / most) if on_gpu else 0
        self._ray = ray
        self._make = ray.remote(_Worker).options(num_cpus=1, num_gpus=gpus).remote
        self._start = start
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(most):
            self._idle.put(None)

    def __call__(self, item: Item) -> Result:
        """Return the result for an item.

        Raises:
            CrashError: if the worker died while it worked on the item.
            Exception: Any exception that the work raised.
        """
        worker = self._idle.get()
        try:
            worker = worker or self._make(self._start)
            result: Result = self._ray.get(worker.work.remote(item))
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayActorError:
            worker = None
            raise CrashError("its Ray worker died") from None
        finally:
            self._idle.put(worker)
        return result


class _Worker:
    def __init__(self, start: Callable[[int], Callable[[Any], Any]]) -> None:
        self._start = start
        self._work: Callable[[Any], Any] | None = None

    def work(self, item: Any) -> Any:
        self._work = self._work or self._start(0)
        return self._work(item)


def import_ray(*, loopback: bool) -> Any:
    """Import ray; with ``loopback`` it listens only to this machine."""
    # The import reads these variables. The first one turns usage statistics off.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if loopback:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray = needed("ray", extra="ray")
    needed("ray.data", extra="ray")
    return ray


def _connect(ray: Any, address: str | None, workers: int) -> bool:
    # Returns whether it connected, so that the caller disconnects.
    if ray.is_initialized():
        return False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    settings: dict[str, object] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        settings |= {
            "include_dashboard": False,
            "num_cpus": max(workers + 1, usable_cores()),
        }
    try:
        ray.init(address=address or "local", **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        place = address or "this machine"
        raise UserError(f"cannot connect to Ray at {place}: {first_line(error)}") from error
    return True
