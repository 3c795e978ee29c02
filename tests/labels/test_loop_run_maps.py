"""The maps of finished runs wait for a training, except the one that the page asks for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from s5mars.labels.loop.run_maps import RunMaps


def test_one_map_that_the_page_asks_for_does_not_bring_the_others(tmp_path: Path) -> None:
    trainer: Any = SimpleNamespace(folder=tmp_path, finished=["1"], running=True)
    store = SimpleNamespace(painted=["a", "b", "c"], splits=SimpleNamespace(of=lambda name: "val"))
    assistant: Any = SimpleNamespace(store=store, queue=[])
    maps = RunMaps(trainer, assistant, device="cpu")
    assert maps._next_job() is None

    assert maps.get("1", "b") is None
    job: Any = maps._next_job()
    assert job.args == ("1", "b")
    for path in maps._paths("1", "b"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert maps._next_job() is None
    trainer.running = False
    other: Any = maps._next_job()
    assert other.args == ("1", "a")


def test_maps_of_different_images_are_different_files(tmp_path: Path) -> None:
    maps = RunMaps(SimpleNamespace(folder=tmp_path), SimpleNamespace(), device="cpu")  # type: ignore[arg-type]
    paths = [path for name in ("a", "a_confidence") for path in maps._paths("1", name)]
    assert len(set(paths)) == 4
