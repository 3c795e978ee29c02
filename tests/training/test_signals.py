"""Handlers of signals, in every order in which Python may call them."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from s5mars.errors import UserError
from s5mars.training import signals
from s5mars.training.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_step_that_is_given_up_names_the_signal(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its signal and the alarm come in one long call, after which the lower number is first."""
    main_thread, both = threading.get_ident(), {number, signal.SIGALRM}
    with StopSignals(lambda: "step 2 is saved") as stop:
        stop.doing = "step"
        signal.pthread_sigmask(signal.SIG_BLOCK, both)
        try:
            signal.pthread_kill(main_thread, number)
            with monkeypatch.context() as patch:
                patch.setattr(signals, "GRACE_SECONDS", 0)
                threading.Thread(target=stop._end_soon, args=(number.name,), daemon=True).start()
                while signal.SIGALRM not in signal.sigpending():
                    time.sleep(0.01)
            with pytest.raises(UserError, match=f"^stopped by {number.name} in the middle of"):
                signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
            stop.doing = "busy"
