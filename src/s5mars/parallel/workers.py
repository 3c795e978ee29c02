"""Runs work in separate processes; if a process dies, one item is lost, but not the run.

The pools of ``multiprocessing`` hang or break when one of their processes is killed, leave
processes behind when the caller is killed, and run the caller's script again in each process. Here
a process is a new interpreter that reads items from a pipe and ends when the pipe closes.
"""

from __future__ import annotations

import fcntl
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

# The processes share the cores, and results may depend on the number of threads.
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
    """A process died while it worked on an item; the message says how."""


class Processes(Generic[Item, Result]):
    """A callable that runs a function in one of several processes; call it from several threads.

    Processes start when they are needed, and a process that died is replaced. Each has one thread
    for numerical work. They end with ``close`` or when the calling process ends or dies.

    Args:
        start: Called once in each process with the number of the process, 0 to ``most`` - 1;
            returns the function that does the work. It, the items and the results are pickled;
            arrays are not copied on the way.
        most: Maximum number of processes; a caller waits while all are busy.
    """

    def __init__(self, start: Callable[[int], Callable[[Item], Result]], *, most: int) -> None:
        self._start = start
        # Last in, first out: running processes are used before new ones are started.
        self._idle: queue.LifoQueue[tuple[int, _Process | None]] = queue.LifoQueue()
        self._most = most
        for number in reversed(range(most)):
            self._idle.put((number, None))

    def close(self) -> None:
        """End all processes after they have finished their current items."""
        # All are taken first: the queue returns what was put back last.
        for number, process in [self._idle.get() for _ in range(self._most)]:
            if process is not None:
                process.stop()
            self._idle.put((number, None))

    def __call__(self, item: Item) -> Result:
        """Return the result for an item.

        Raises:
            CrashError: if the process died while it worked on the item.
            Exception: Any exception that the work raised.
        """
        number, process = self._idle.get()
        try:
            if process is None:
                process = _Process(self._start, number)
            done, answer = process.ask(item)
        except BaseException:
            process = None  # it is dead, or would send an answer that nobody reads
            raise
        finally:
            self._idle.put((number, process))
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
            env={**os.environ, **_ONE_THREAD},
        )
        assert self._popen.stdin is not None and self._popen.stdout is not None
        self._items, self._answers = self._popen.stdin, self._popen.stdout
        for pipe in (self._items, self._answers):
            _enlarge(pipe)
        # If the process is dead already, ``ask`` notices.
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
        self._popen.kill()  # it only waits for an item
        self._close()
        self._popen.wait()

    def _close(self) -> None:
        for pipe in (self._items, self._answers):
            with suppress(OSError):
                pipe.close()


def _enlarge(pipe: IO[bytes]) -> None:
    """Make a pipe faster, where the system can and allows it: the pipes of a user have a limit."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def ended(code: int) -> str:
    """Describe a return code: ``"ended by SIGABRT"``, ``"ended with code 3"``."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # real-time signals have no names
        name = f"signal {-code}"
    return f"ended by {name}" + (", perhaps out of memory" if name == "SIGKILL" else "")


def serve() -> None:
    """Main loop of a worker process: answer items until the pipe closes."""
    # A keyboard interrupt reaches every process; the caller handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    items = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # libraries must not print into the answers
    start, number = _receive(items)
    work = None
    # These errors mean that the caller closed the pipe or died.
    with suppress(EOFError, BrokenPipeError):
        while True:
            item = _receive(items)
            try:
                work = work or start(number)
                answer = True, work(item)
            except Exception as error:
                answer = False, _portable(error)
            _send(answers, answer)
            del item, answer  # they may be large, and the next item may come late


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
        while rest:  # a pipe may accept only a part
            rest = rest[pipe.write(rest) :]


def _receive(pipe: IO[bytes]) -> Any:
    (count,) = _SIZE.unpack(_filled(pipe, _SIZE.size))
    sizes = [_SIZE.unpack(_filled(pipe, _SIZE.size))[0] for _ in range(count)]
    head, *buffers = [_filled(pipe, size) for size in sizes]
    return pickle.loads(head, buffers=buffers)


def _filled(pipe: IO[bytes], size: int) -> Any:
    buffer: Any = np.empty(size, np.uint8)  # a bytearray would be zeroed first
    rest = memoryview(buffer)
    while rest:
        read = pipe.readinto(rest)  # type: ignore[attr-defined]
        if not read:
            raise EOFError
        rest = rest[read:]
    return buffer
