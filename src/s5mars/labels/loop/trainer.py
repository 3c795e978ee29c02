"""``s5mars train`` on the folder, in a process of its own.

A run is the folder ``labelling/runs/N`` and its output ``N.log``. A process that outlives a killed
server goes on; the next server finds it by the lock on its folder.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from s5mars.data.read import image_size
from s5mars.errors import UserError, require_choice
from s5mars.files.locking import LOCK, is_locked
from s5mars.files.reading import read_object, read_text
from s5mars.files.run_folder import FACTS, METRICS
from s5mars.labels.loop.features import ENCODER
from s5mars.labels.loop.store import Store
from s5mars.settings.parsing import chosen, given, parse_training
from s5mars.settings.recipes import find_recipe
from s5mars.settings.used import require_used, without_unused

METHODS = ("s5mars", "self_training", "supervised_averaged", "supervised")
"""Methods that the page offers, the first one first; ``--method`` adds another one."""

STEPS = 600
MOST_STEPS = 200_000

_SIDE = 512
"""Longer side of images in training; larger ones would make a first model wait for hours."""

_CROP = 192
_LOOKED_AT = 8  # images whose sizes decide about resolution and crop
_LOG_BYTES = 20_000
_STEP = re.compile(r"^step (\d+) of (\d+)", re.MULTILINE)  # of training/announce.py

# Below the server in priority, so that strokes stay quick.
_MAIN = "import os, sys; os.nice(5); from s5mars.cli import main; sys.exit(main(sys.argv[1:]))"


class Trainer:
    """The runs of a folder; one at a time.

    Args:
        options: of ``s5mars train``; they, their settings files and their recipe are used instead
            of what the page would choose.
        start: model to start from and its encoder; None for ImageNet weights. An encoder or weights
            among the options are used instead.

    Raises:
        UserError: if an option is unknown or set by the page.
    """

    def __init__(
        self, store: Store, options: Sequence[str], *, start: tuple[str, str] | None = None
    ) -> None:
        self.store = store
        self.options = list(options)
        self.folder = store.folder.state / "runs"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopped: set[str] = set()
        store.may_remove = lambda: not self.running
        words = {option.partition("=")[0] for option in self.options}
        for name in ("--data", "--out", "--resume", "--steps", "--epochs"):
            if name in words:
                raise UserError(f"{name} is set by the label page; omit it")
        self._start = None if given(self.options, ("model", "weights")) else start
        default = parse_training(self._arguments("N", None, STEPS))
        self.method = default.config.method
        require_used(default.config, {self.method: default.method.needs})
        store.remove_empty()

    @property
    def methods(self) -> list[str]:
        """Methods to choose from, the default first."""
        return list(dict.fromkeys((self.method, *METHODS)))

    @property
    def start_from(self) -> str | None:
        """The model that runs start from; None: weights for ImageNet, or those of the options."""
        return self._start[0] if self._start else None

    @property
    def runs(self) -> list[str]:
        """The names of all runs, oldest first."""
        return sorted((p.stem for p in self.folder.glob("*.log") if p.stem.isdecimal()), key=int)

    @property
    def finished(self) -> list[str]:
        """The runs that have ended with a model."""
        ended = self.runs[:-1] if self.running else self.runs
        return [run for run in ended if (self.folder / run / FACTS).is_file()]

    @property
    def running(self) -> bool:
        """Whether a training reads the masks now."""
        if self._process is not None and self._process.poll() is None:
            return True
        return bool(self.runs) and is_locked(self.folder / self.runs[-1])

    @property
    def obstacle(self) -> str | None:
        """Why no training can start now; None if one can."""
        splits = self.store.splits
        if not splits.lists["val"]:
            return (
                f"Paint on {splits.missing_for_val} first: one of them is held back to choose the "
                "checkpoint."
            )
        if not splits.lists["train"]:
            return (
                "Paint on another image first: all painted ones are held back to choose the "
                "checkpoint."
            )
        return None

    def start(self, method: str, steps: int) -> str:
        """Start a training; returns the name of its run.

        Raises:
            UserError: if one runs already, too little is painted, or a setting is wrong.
        """
        with self._lock:
            if self.running:
                raise UserError(
                    "a training is already running; stop it first or wait until it ends"
                )
            if (reason := self.obstacle) is not None:
                raise UserError(reason)
            require_choice(method, self.methods, name="method")
            if not 1 <= steps <= MOST_STEPS:
                raise UserError(f"steps must be in 1..{MOST_STEPS}")
            run = str(int(self.runs[-1]) + 1 if self.runs else 1)
            arguments = self._arguments(run, method, steps)
            # The options were given for the default method.
            training = parse_training(arguments)
            arguments += without_unused(training.config, training.method.needs)
            self.store.remove_empty()
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._log_file(run).open("xb") as log:
                log.write(f"s5mars {shlex.join(['train', *arguments])}\n".encode())
                log.flush()
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _MAIN, "train", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            return run

    def stop(self) -> None:
        """Ask the running training to save and end.

        Raises:
            UserError: if another server started it; only its folder and its process are known then.
        """
        if self._interrupted() or not self.running:
            return
        run = self.runs[-1]
        held_by = read_text(self.folder / run / LOCK, kind="lock").partition(" (")[0]
        raise UserError(
            f"run {run} was started by a label page that has ended, and continues in {held_by}: "
            "stop it with `kill` and the number of the process"
        )

    def close(self) -> None:
        """End the training, because the server ends."""
        self._interrupted()
        if self._process is not None:
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _interrupted(self) -> bool:
        """Ask a training of this server to end; return whether there is one."""
        if self._process is None or self._process.poll() is not None:
            return False
        self._stopped.add(self.runs[-1])
        self._process.send_signal(signal.SIGTERM)
        return True

    def state(self) -> dict[str, Any]:
        """What the page shows of the newest run."""
        runs, finished = self.runs, self.finished
        state: dict[str, Any] = {
            "running": self.running, "finished": finished, "obstacle": self.obstacle,
        }  # fmt: skip
        if not runs:
            return state
        run = runs[-1]
        state |= {"run": run, "step": 0, "steps": 0, "scores": [], "failed": None}
        text = self.log(run)
        if said := _STEP.findall(text):
            state["step"], state["steps"] = map(int, said[-1])
        if (self.folder / run / METRICS).is_file():
            metrics = read_object(self.folder / run / METRICS)
            state["scores"] = [
                [entry["step"], entry["validation"]["mIoU"]] for entry in metrics["history"]
            ]
        ended = not state["running"] and run not in finished
        if ended:
            lines = [line for line in text.splitlines() if line.strip()]
            state["failed"] = (
                "stopped before it had a model" if run in self._stopped
                else lines[-1] if lines else "it ended without a message"
            )  # fmt: skip
        return state

    def log(self, run: str) -> str:
        """The end of a run's output; of a progress bar its last state."""
        with self._log_file(run).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _LOG_BYTES))
            text = file.read().decode("utf-8", "replace")
        return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))

    @cached_property
    def _sizes(self) -> tuple[str, int]:
        """Resolution and crop, from the sizes of some images."""
        paths = list(self.store.folder.images.values())
        sizes = []
        for path in paths[:: -(-len(paths) // _LOOKED_AT)]:
            with suppress(UserError, OSError):  # it is shown when the image is opened
                sizes.append(image_size(path))
        if not sizes:
            return "full", _CROP
        longer = max(max(size) for size in sizes)
        shrunk = min(1.0, _SIDE / longer) if longer > _SIDE * 1.25 else 1.0
        shorter = min(min(size) * shrunk for size in sizes)
        crop = max(32, min(_CROP, int(shorter) // 32 * 32))
        return ("full" if shrunk == 1 else str(_SIDE)), crop

    def _log_file(self, run: str) -> Path:
        return self.folder / f"{run}.log"

    def _arguments(self, run: str, method: str | None, steps: int) -> list[str]:
        resolution, crop = self._sizes
        own = {"model": ENCODER, "resolution": resolution, "crop": crop, "batch": 4,
               "method": METHODS[0]}  # fmt: skip
        # As options, they would override a settings file or a recipe.
        recipe = find_recipe(chosen(self.options).recipe)
        fixed = given(self.options, own).keys() | recipe.training.keys()
        own = {name: value for name, value in own.items() if name not in fixed}
        if self._start is not None:
            own |= {"start-from": self._start[0], "model": self._start[1]}
        arguments = [
            f"--data={self.store.folder.root}", f"--out={self.folder / run}", f"--steps={steps}",
            *(f"--{name}={value}" for name, value in own.items()), *self.options,
        ]  # fmt: skip
        return arguments if method is None else [*arguments, f"--method={method}"]
