"""``s5mars train`` on the folder, in a process of its own, and the maps of its runs.

A run is the folder ``labelling/runs/N`` and its output ``N.log``. A process that outlives a killed
server goes on; the next server finds it by the lock on its folder.
"""

from __future__ import annotations

import logging
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from s5mars.data.read import image_size
from s5mars.errors import UserError, require_choice
from s5mars.files import encoded_picture, write_bytes
from s5mars.files.locking import locked
from s5mars.files.reading import read_object, reading
from s5mars.files.run_folder import FACTS, METRICS
from s5mars.labels.loop.assistant import Assistant, Suggestion, as_suggestion
from s5mars.labels.loop.background import Background, Job
from s5mars.labels.loop.features import ENCODER
from s5mars.labels.loop.store import Store
from s5mars.predict.overlay import indexed_png
from s5mars.predict.predictor import Predictor, load
from s5mars.settings.parsing import parse_training
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

logger = logging.getLogger("s5mars")


class Trainer:
    """The runs of a folder; one at a time.

    Args:
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
        given = {option.partition("=")[0] for option in self.options}
        for name in ("--data", "--out", "--resume", "--steps", "--epochs"):
            if name in given:
                raise UserError(f"{name} is set by the label page; omit it")
        self._start = None if {"--model", "--weights"} & given else start
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
        return bool(self.runs) and _is_held(self.folder / self.runs[-1])

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
        """Ask the running training to save and end."""
        process = self._process
        if process is not None and process.poll() is None:
            self._stopped.add(self.runs[-1])
            process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End the training, because the server ends."""
        self.stop()
        if self._process is not None:
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

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
            with suppress(UserError):  # it is told where the image is opened
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
        network = [f"--model={ENCODER}"]
        if self._start is not None:
            network = [f"--start-from={self._start[0]}", f"--model={self._start[1]}"]
        chosen = [
            f"--data={self.store.folder.root}", f"--out={self.folder / run}", f"--steps={steps}",
            *network, f"--resolution={resolution}", f"--crop={crop}", "--batch=4",
            f"--method={METHODS[0]}", *self.options,
        ]  # fmt: skip
        return chosen if method is None else [*chosen, f"--method={method}"]


class RunMaps(Background):
    """The maps of finished runs, made in a thread of their own and kept as files of the run."""

    MOST = 12
    """Maps beside that of the image in view: those of held-back images and of the next ones."""

    def __init__(self, trainer: Trainer, assistant: Assistant, *, device: str) -> None:
        self.trainer = trainer
        self.assistant = assistant
        self.device = device
        self._model: tuple[str, Predictor] | None = None
        self._wanted: tuple[str, str] | None = None
        self._failed: set[tuple[str, str]] = set()
        super().__init__("maps", self._next_job, wake=threading.Condition(), pause=lambda: 2.0)

    def get(self, run: str, name: str) -> Suggestion | None:
        """The map of an image; None if it is not made yet, and then it is made next."""
        paths = self._paths(run, name)
        if not all(path.is_file() for path in paths):
            with self._wake:
                self._wanted = run, name
                self._wake.notify_all()
            return None
        arrays = []
        for path in paths:
            with reading(path, kind="map"), Image.open(path) as file:
                arrays.append(np.array(file))
        return Suggestion(arrays[0], arrays[1])

    def has(self, run: str, name: str) -> bool:
        """Whether the map of an image is there."""
        return all(path.is_file() for path in self._paths(run, name))

    def shown(self, run: str) -> list[str]:
        """Images whose maps the page shows."""
        return [name for name in self._order() if self.has(run, name)]

    def _paths(self, run: str, name: str) -> tuple[Path, Path]:
        folder = self.trainer.folder / run / "maps"
        return folder / f"{name}.png", folder / f"{name}_confidence.png"

    def _order(self) -> list[str]:
        store = self.assistant.store
        held = [name for name in store.painted if store.splits.of(name) == "val"][: self.MOST // 2]
        ahead = [ranked.name for ranked in self.assistant.queue]
        rest = [name for name in store.painted if name not in held]
        return [*held, *ahead, *rest][: self.MOST]

    def _next_job(self) -> Job | None:
        finished = self.trainer.finished
        if not finished or (self.trainer.running and self._wanted is None):
            return None
        wanted: Iterable[tuple[str, str]] = [(finished[-1], name) for name in self._order()]
        if self._wanted is not None and self._wanted[0] in finished:
            wanted = [self._wanted, *wanted]
        missing = (each for each in wanted if each not in self._failed and not self.has(*each))
        job = next(missing, None)
        return None if job is None else partial(self._make, *job)

    def _make(self, run: str, name: str) -> None:
        try:
            self._predict(run, name)
        except Exception as error:
            self._failed.add((run, name))
            logger.warning("no map of %s: %s", name, error)

    def _predict(self, run: str, name: str) -> None:
        if self._model is None or self._model[0] != run:
            self._model = run, load(self.trainer.folder / run, device=self.device)
        picture = self.assistant.picture(name)
        found = self._model[1].segment(picture.image)
        made = as_suggestion(found.labels, found.confidence / 255, picture.valid)
        labels, confidence = self._paths(run, name)
        write_bytes(
            confidence, encoded_picture(Image.fromarray(made.confidence), ".png", compress_level=1)
        )
        drawn = indexed_png(made.labels, self.assistant.store.folder.taxonomy)
        write_bytes(labels, encoded_picture(drawn, ".png", compress_level=1))


def _is_held(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    try:
        with locked(folder):
            return False
    except UserError:
        return True
