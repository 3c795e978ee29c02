"""A process with few cores of a large machine, as in a container, uses only these."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from s5mars.parallel import ahead, cluster
from s5mars.parallel.cores import usable_cores


@pytest.fixture(autouse=True)
def three_of_64_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5, 6}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)


def test_images_are_mapped_on_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = []

    def recorded(*arguments: Any, **options: Any) -> Any:
        workers.append(options["workers"])
        return real(*arguments, **options)

    real = ahead.ahead
    monkeypatch.setattr(ahead, "ahead", recorded)
    assert list(ahead.map_images(abs, [-1, 2], description="x")) == [1, 2]
    assert workers == [usable_cores()] == [3]


@pytest.mark.parametrize(("workers", "cores"), [(1, 3), (4, 5)])
def test_a_local_cluster_has_usable_cores(workers: int, cores: int) -> None:
    started: dict[str, Any] = {}
    ray = SimpleNamespace(
        is_initialized=lambda: False, init=lambda **options: started.update(options)
    )
    assert cluster._connect(ray, None, workers)
    assert started["num_cpus"] == cores
