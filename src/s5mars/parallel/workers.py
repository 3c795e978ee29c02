"""Work in processes of their own: what kills such a process costs one item, and not the run.

Not ``multiprocessing``: its pools hang or break as a whole when a process of theirs is killed,
leave their processes behind when the caller itself is, and run the caller's script again in each.
Here a process is a fresh interpreter that takes items from a pipe and ends with the pipe.
"""

from __future__ import annotations

import json
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, Generic, TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")

# So many processes share the cores already; numbers, too, may depend on the number of threads.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
_MAIN = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from s5mars.parallel.workers import serve; serve()"
)
_PIPE_BYTES = 1 << 20
_SIZE = struct.Struct("<Q")


class CrashError(RuntimeError):
    """A process died over an item; the message says how."""


class Processes(Generic[Item, Result]):
    """A function that works in one of a few processes; call it from as many threads as there are.

    A process is started when one is first needed, and again after one died. Each has one thread of
    numerical work. They end when it is closed, or the calling process ends, whatever ends it.

    Args:
        start: gives the function that does the work, from the number of the process, 0 up to
            ``most``; called in the process, before its first item. It, the items and the results
            travel through pickle; arrays are not copied on the way.
        most: processes at the same time; a caller waits where all are at work.
    """

    def __init__(self, start: Callable[[int], Callable[[Item], Result]], *, most: int) -> None:
        self._start = start
        # Last in, first out: one that runs already comes before one that would have to be started.
        self._places: queue.LifoQueue[tuple[int, _Process | None]] = queue.LifoQueue()
        self._most = most
        for number in reversed(range(most)):
            self._places.put((number, None))

    def close(self) -> None:
        """End the processes; who is still waiting for an answer gets it first."""
        for _ in range(self._most):
            number, process = self._places.get()
            if process is not None:
                process.stop()
            self._places.put((number, None))

    def __call__(self, item: Item) -> Result:
        """The result for an item.

        Raises:
            CrashError: if the process died over it.
            Exception: what the work raised.
        """
        number, process = self._places.get()
        try:
            if process is None:
                process = _Process(self._start, number)
            done, answer = process.ask(item)
        except BaseException:
            process = None  # dead, or in the middle of an answer that nobody waits for
            raise
        finally:
            self._places.put((number, process))
        if not done:
            raise answer
        result: Result = answer
        return result


class _Process:
    def __init__(self, start: Callable[[int], Any], number: int) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _MAIN, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pipesize=_PIPE_BYTES,
            env={**os.environ, **_ONE_THREAD},
        )
        assert self._popen.stdin is not None and self._popen.stdout is not None
        self._items, self._answers = self._popen.stdin, self._popen.stdout
        # A process that is dead already is found by the first question.
        with suppress(OSError):
            _send(self._items, (start, number))

    def ask(self, item: object) -> tuple[bool, Any]:
        try:
            _send(self._items, item)
            answer: tuple[bool, Any] = _receive(self._answers)
        except (EOFError, OSError):
            self._close()
            code = self._popen.wait()
            raise CrashError(f"its process {'was ' if code < 0 else ''}{ended(code)}") from None
        return answer

    def stop(self) -> None:
        self._popen.kill()  # it waits for an item and has nothing to put away
        self._close()
        self._popen.wait()

    def _close(self) -> None:
        for pipe in (self._items, self._answers):
            with suppress(OSError):
                pipe.close()


def ended(code: int) -> str:
    """From its return code: ``"ended by SIGABRT"``, ``"ended with code 3"``."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # real-time signals have no names
        name = f"signal {-code}"
    return f"ended by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")


def serve() -> None:
    """What such a process does until its pipe ends."""
    # An interrupt from the keyboard reaches every process; the caller decides what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    items = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print must not get among the answers
    start, number = _receive(items)
    work = None
    # Without the pipe's other end there is nobody left to tell.
    with suppress(EOFError, BrokenPipeError):
        while True:
            item = _receive(items)
            try:
                work = work or start(number)
                answer = True, work(item)
            except Exception as error:
                answer = False, _portable(error)
            _send(answers, answer)
            del item, answer  # they may be large, and the next item far away


def _portable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _send(pipe: IO[bytes], value: object) -> None:
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
    sizes = [_SIZE.pack(size) for size in (len(parts), *(part.nbytes for part in parts))]
    for part in (memoryview(b"".join(sizes)), *parts):
        rest = part
        while rest:  # a pipe takes as much as it likes
            rest = rest[pipe.write(rest) :]


def _receive(pipe: IO[bytes]) -> Any:
    (count,) = _SIZE.unpack(_filled(pipe, _SIZE.size))
    sizes = [_SIZE.unpack(_filled(pipe, _SIZE.size))[0] for _ in range(count)]
    head, *buffers = [_filled(pipe, size) for size in sizes]
    return pickle.loads(head, buffers=buffers)


def _filled(pipe: IO[bytes], size: int) -> Any:
    buffer: Any = np.empty(size, np.uint8)  # not a bytearray, which would be cleared first
    rest = memoryview(buffer)
    while rest:
        read = pipe.readinto(rest)  # type: ignore[attr-defined]
        if not read:
            raise EOFError
        rest = rest[read:]
    return buffer
