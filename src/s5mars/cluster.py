"""A Ray on this machine, or a place in a cluster that runs already."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from s5mars.extras import needed


@contextmanager
def connected(address: str | None, *, workers: int) -> Iterator[Any]:
    """Ray, connected; left again afterwards unless this process was connected before.

    Args:
        address: of a cluster, or ``"auto"`` for the one that runs here; None starts Ray on this
            machine, unless this process is connected already.
        workers: that will be at work at the same time.

    Raises:
        ValueError: if Ray is not installed, or there is no cluster at the address.
    """
    ray = import_ray(loopback=address is None)
    started = _connect(ray, address, workers)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


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
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"no Ray cluster at {address or 'this machine'} ({reason})") from error
    return True
