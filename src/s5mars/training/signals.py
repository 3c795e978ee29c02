"""Signals that end a run: the first after its step, or within seconds; a second SIGINT at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from s5mars.errors import UserError
from s5mars.parallel import distributed

GRACE_SECONDS = 4.0
"""How long a step or a wait for a batch may go on after a signal to stop."""

LAST_SECONDS = 2.0
"""How much longer it may take until Python can interrupt it; a backward pass is one long call."""

ABANDONED = 2
"""Exit status of a process that ended in the middle of a step."""

_WHERE = {
    "waiting": " while waiting for a batch",
    "step": " in the middle of a step",
    "scoring": " in the middle of a validation",
    "busy": "",
}


@dataclass(frozen=True)
class Ended:
    """How a training has ended."""

    run: Path
    signal: int = 0
    """Number of the signal that has stopped the run.

    0 in all processes of a run but the first: if another one ended with an exit code, torchrun and
    srun would kill the first while it may be saving.
    """

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal, or 0. A shell does not go on with half a model."""
        return 128 + self.signal if self.signal else 0


class InterruptedValidation(Exception):  # noqa: N818 - nothing is wrong
    """A validation ends early, because the run has to stop."""


class StopSignals:
    """Handlers of SIGINT and SIGTERM for the time of a ``with`` block.

    The first signal asks the loop to save and to end after the current step. If the run has one
    process, it ends within ten seconds: what takes longer is given up. A second SIGINT interrupts
    at once. ``kept`` says what was saved and how to resume from it.
    """

    def __init__(self, kept: Callable[[], str]) -> None:
        self.kept = kept
        self.stopped_by = ""  # name of the signal
        self.doing: Literal["waiting", "step", "scoring", "busy"] = "busy"  # set by the loop
        self._noticed = ""  # name of the first signal, known before Python calls its handler
        self._ended = threading.Event()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            self._previous[number] = signal.signal(number, self._request_stop)
        # Python calls a handler only after the main thread's current call, and a backward pass is
        # one call that may take minutes; a thread that reads this pipe learns of a signal at once.
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._previous_pipe = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        signal.set_wakeup_fd(self._previous_pipe)
        os.close(self._writing)
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def number(self) -> int:
        """Of the signal that stopped the run; SIGTERM stands for one to another process."""
        return int(getattr(signal, self.stopped_by, signal.SIGTERM))

    def end_validation(self) -> None:
        """End a validation, if a signal asks this only process to stop.

        Raises:
            InterruptedValidation: if so.
        """
        if self.stopped_by and distributed.number() == 1:
            raise InterruptedValidation

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGALRM:
            if self._can_be_given_up:  # it may have ended in the meantime
                raise UserError(self._given_up)
            return
        if self.stopped_by and number == signal.SIGINT:
            raise KeyboardInterrupt(self.kept())
        self.stopped_by = signal.Signals(number).name

    def _watch(self, reading: int) -> None:
        with open(reading, "rb", buffering=0) as signals:
            while number := signals.read(1):
                if number[0] in (signal.SIGINT, signal.SIGTERM):
                    self._end_soon(signal.Signals(number[0]).name)
                    return

    def _end_soon(self, name: str) -> None:
        """Interrupt a step or a wait for a batch that goes on; then end the process, if alone."""
        if self._ended.wait(GRACE_SECONDS):
            return
        self._noticed = name
        if self._can_be_given_up:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        if distributed.number() > 1 or self._ended.wait(LAST_SECONDS):
            return
        while self.doing == "busy":  # with what must not be lost, and takes moments
            if self._ended.wait(0.1):
                return
        print(f"\ns5mars: {self._given_up}", file=sys.stderr, flush=True)
        os._exit(ABANDONED)  # the weights and the batch of the step are lost

    @property
    def _can_be_given_up(self) -> bool:
        alone = distributed.number() == 1
        return self.doing == "waiting" or (self.doing == "step" and alone)

    @property
    def _given_up(self) -> str:
        # After a long call Python runs pending handlers by number: SIGALRM's before SIGTERM's.
        name = self.stopped_by or self._noticed
        return f"stopped by {name}{_WHERE[self.doing]}; {self.kept()}"


def _detach_in_child() -> None:
    """Detach the wake-up pipe in a forked child, so that its signals do not stop this process."""
    with suppress(ValueError):  # forked by another thread than the main one, which has no pipe
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_detach_in_child)
