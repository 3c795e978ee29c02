"""Signals that end a run: the first after its step, a second SIGINT at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from s5mars.errors import UserError

GRACE_SECONDS = 10.0
"""How long to wait for a batch after a signal to stop."""


class NoBatchError(UserError):
    """No batch came in time after a signal."""


class StopSignals:
    """Handlers of SIGINT and SIGTERM for the time of a ``with`` block."""

    def __init__(self) -> None:
        self.stopped_by = ""  # name of the signal
        self.waiting = True  # whether the next batch has not arrived
        self._timer: threading.Timer | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            self._previous[number] = signal.signal(number, self._request_stop)
        return self

    def __exit__(self, *error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGALRM:
            raise NoBatchError(f"stopped by {self.stopped_by} while waiting for a batch")
        if self.stopped_by and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stopped_by = signal.Signals(number).name
        if self._timer is None:
            self._timer = threading.Timer(GRACE_SECONDS, self._interrupt)
            self._timer.daemon = True
            self._timer.start()

    def _interrupt(self) -> None:
        """Interrupt a wait for a batch that never arrives; a running step ends by itself."""
        if self.waiting:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
