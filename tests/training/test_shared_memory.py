"""No more batches are under way than shared memory holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from s5mars.training import shared_memory
from s5mars.training.shared_memory import IN_USE, PREFETCH, fitting_workers


@pytest.mark.parametrize("workers", [0, 1, 3, 4])
@pytest.mark.parametrize("room", [0, 1, 2, 3, 4, 7, 12, 15, 16, 17, 10**6])
@pytest.mark.parametrize("sharing", [1, 2])
def test_fewer_batches_then_fewer_processes_then_none(
    workers: int,
    room: int,
    sharing: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(shared_memory, "_free", lambda: sharing * 1000.0 * (room + IN_USE) + 999)
    kept, ahead = fitting_workers(workers, batch_bytes=1000, sharing=sharing)
    assert kept * ahead <= room
    assert kept == min(workers, room)
    if kept:
        assert 1 <= ahead <= PREFETCH
        assert (ahead + 1) * kept > room or ahead == PREFETCH or kept < workers
    all_wanted = room >= PREFETCH * workers
    assert [r.levelname for r in caplog.records] == ([] if all_wanted else ["WARNING"])
    if not all_wanted:
        assert "--shm-size" in caplog.text
        assert ("the training process reads the data itself" in caplog.text) == (kept == 0)


def test_no_place_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(shared_memory, "PLACE", tmp_path / "nowhere")
    assert fitting_workers(4, batch_bytes=1) == (0, 0)
    monkeypatch.setattr("sys.platform", "darwin")
    assert fitting_workers(4, batch_bytes=1) == (4, PREFETCH)
