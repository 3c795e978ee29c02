"""The class maps of finished runs, for the page."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from s5mars.files import encoded_picture, write_bytes
from s5mars.files.reading import reading
from s5mars.labels.loop.assistant import Assistant
from s5mars.labels.loop.background import Background, Job
from s5mars.labels.loop.suggestion import Suggestion, as_suggestion
from s5mars.labels.loop.trainer import Trainer
from s5mars.predict.overlay import indexed_png
from s5mars.predict.predictor import Predictor, load

logger = logging.getLogger("s5mars")


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
        # In folders of their own: any suffix may be the end of another image's name.
        folder = self.trainer.folder / run / "maps"
        return folder / "labels" / f"{name}.png", folder / "confidence" / f"{name}.png"

    def _order(self) -> list[str]:
        store = self.assistant.store
        held = [name for name in store.painted if store.splits.of(name) == "val"][: self.MOST // 2]
        ahead = [ranked.name for ranked in self.assistant.queue]
        rest = [name for name in store.painted if name not in held]
        return [*held, *ahead, *rest][: self.MOST]

    def _next_job(self) -> Job | None:
        if self._wanted is not None and (self._wanted in self._failed or self.has(*self._wanted)):
            self._wanted = None  # the others wait for a training that is running
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
