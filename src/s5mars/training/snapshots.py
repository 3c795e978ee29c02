"""Copies of the scored network that a run saves besides its best weights."""

from __future__ import annotations

from pathlib import Path

_FOLDER = "snapshots"


def is_snapshot(step: int, total: int, *, number: int) -> bool:
    """Whether one of ``number`` equal parts of a run ends at a step."""
    return any(step == part * total // number for part in range(1, number + 1))


def snapshot_path(run: Path, step: int) -> Path:
    """Path of the copy of a step."""
    return run / _FOLDER / f"step-{step:08d}.safetensors"


def snapshots(run: Path) -> list[Path]:
    """Copies that a run has saved, the earliest first."""
    return sorted((run / _FOLDER).glob("step-*.safetensors"))
