"""Trains in several processes at once, as torchrun or SLURM would start them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from lightning_fabric.utilities import rank_zero_only

from apart import start
from s5mars.cli import main
from s5mars.training.record import Record

PATIENCE = 600  # seconds for all commands together
STOP = "stop after the first validation"


def together(commands: Sequence[list[str]], folder: Path, *, number: int = 2) -> list[str]:
    """Run commands one after the other in ``number`` processes.

    A command may begin with ``STOP``: then the last process gets a SIGTERM on the way.

    Args:
        commands: arguments of ``s5mars``.
        folder: for ``said_0`` and so on, what each process prints; and for ``written_0`` and so on,
            the files that it opened for writing below the folder, and the folders that it made.

    Returns:
        How each process ended; empty for success.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [start(_train, rank, number, port, list(commands), folder) for rank in range(number)]
    ends = []
    for rank, process in enumerate(started):
        process.join(PATIENCE)
        hung = process.is_alive()
        process.kill()
        process.join()
        said = (folder / f"said_{rank}").read_text(encoding="utf-8", errors="replace")
        ends.append("" if process.exitcode == 0 else f"hung: {hung}; it said: {said[-3000:]}")
    return ends


def _train(rank: int, number: int, port: int, commands: list[list[str]], folder: Path) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(number),
        "NODE_RANK": "0",
        "LOCAL_RANK": str(rank),
        "GLOO_SOCKET_IFNAME": "lo",
        "S5MARS_TRACEBACK": "1",
    }
    rank_zero_only.rank = rank  # the server that this process is forked from had none
    written: set[str] = set()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.mkdir" or (event == "open" and _for_writing(arguments)):
            path = os.fsdecode(arguments[0]) if not isinstance(arguments[0], int) else ""
            if path.startswith(str(folder)) and not Path(path).name.startswith("said_"):
                written.add(path)

    sys.addaudithook(hook)
    with (
        (folder / f"said_{rank}").open("w", encoding="utf-8", buffering=1) as said,
        redirect_stdout(said),
        redirect_stderr(said),
    ):
        try:
            for command in commands:
                _run(command, rank=rank, number=number)
        except BaseException:
            traceback.print_exc()
            raise
    found = sorted(written)
    (folder / f"written_{rank}").write_text("".join(f"{path}\n" for path in found))


def _run(command: list[str], *, rank: int, number: int) -> None:
    score = Record.score

    def score_and_stop(self: Record, module: Any, **others: Any) -> None:
        score(self, module, **others)
        os.kill(os.getpid(), signal.SIGTERM)

    if stops := command[0] == STOP:
        command = command[1:]
        if rank == number - 1:
            Record.score = score_and_stop  # type: ignore[method-assign]
    # Only the first process ends with the code of the signal: to torchrun and srun, another code
    # than 0 means that the others, one of which may be saving, have to be killed.
    code = 143 if stops and not rank else 0
    try:
        assert main(command) == code
    finally:
        Record.score = score  # type: ignore[method-assign]


def _for_writing(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    return bool(mode and set(mode) & set("wax+")) or bool(
        flags and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    )
