"""Whether a run is finished; other commands ask this too, so nothing here needs torch."""

from __future__ import annotations

from pathlib import Path

from s5mars.errors import UserError
from s5mars.files.reading import read_object


def is_finished(run: Path) -> bool:
    """Whether a run has written its final scores, which it writes last."""
    try:
        metrics = read_object(run / "metrics.json")
        return bool(metrics["steps"] >= metrics["total_steps"])
    except (OSError, UserError, KeyError, TypeError):
        return False
