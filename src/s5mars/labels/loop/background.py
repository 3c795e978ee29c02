"""Work beside the page: a thread that does one job after another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

Job = Callable[[], object]

logger = logging.getLogger("s5mars")


class Background:
    """A thread that asks for a job, does it, and waits where there is none.

    Args:
        name: of the thread.
        next_job: what to do next, or None; called with ``wake`` held.
        wake: notified when there may be a new job.
        pause: seconds after which to ask again without that; None for never.
    """

    def __init__(
        self,
        name: str,
        next_job: Callable[[], Job | None],
        *,
        wake: threading.Condition,
        pause: Callable[[], float | None],
    ) -> None:
        self._next_job = next_job
        self._wake = wake
        self._pause = pause
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Begin the work."""
        self._thread.start()

    def stop(self) -> None:
        """End it after the job in hand."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
        self._thread.join(timeout=30)

    def _work(self) -> None:
        while True:
            with self._wake:
                while (job := self._next_job()) is None and not self._stopped:
                    self._wake.wait(self._pause())
                if job is None or self._stopped:
                    return
            try:
                job()
            except Exception:
                logger.exception("the label page continues without this")
