"""Images that could not be prepared, and when to try them again."""

from __future__ import annotations

from s5mars.errors import UserError
from s5mars.parallel.workers import CrashError

RETRY_SECONDS = 30.0
"""Seconds to wait after a disk error, such as a full disk, before another image is tried."""


class Failures:
    """Why images could not be prepared; those of an error of the disk are tried again.

    They are tried one at a time, because on a disk that is still full all would keep a core busy.
    Times are those of ``time.monotonic``. The caller holds a lock.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.retry_at = 0.0
        self._of_disk: dict[str, None] = {}  # oldest first

    def add(self, name: str, error: UserError | OSError | CrashError, *, now: float) -> None:
        """Record that an image failed."""
        self.reasons.setdefault(name, str(error))
        if not isinstance(error, (UserError, CrashError)):
            self._of_disk[name] = None
            self.retry_at = now + RETRY_SECONDS

    def pause(self, now: float) -> float | None:
        """Seconds until an image is to be tried again; None if there is none."""
        return max(0.0, self.retry_at - now) if self._of_disk else None

    def due(self, now: float) -> str | None:
        """The image to try again now, which has not failed any more; None if there is none."""
        if not self._of_disk or now < self.retry_at:
            return None
        name = next(iter(self._of_disk))
        del self._of_disk[name]
        self.reasons.pop(name, None)
        self.retry_at = now + RETRY_SECONDS
        return name

    def hurry(self) -> None:
        """Retry at once, because a write has succeeded."""
        self.retry_at = 0.0
