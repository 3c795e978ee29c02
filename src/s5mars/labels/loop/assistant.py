"""Background work of the label page: features, head, score, superpixels, queue.

One thread computes features and fits heads, one has superpixels made by a process of low priority.
A request returns the latest result; nothing here waits for the page.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from s5mars.errors import UserError
from s5mars.evaluation.confusion import Confusion
from s5mars.files import file_digest
from s5mars.labels.loop.background import Background, Job
from s5mars.labels.loop.failures import Failures
from s5mars.labels.loop.features import Pyramid, PyramidCache, StartModel
from s5mars.labels.loop.head import (
    Head,
    PaintedPixels,
    fit_head,
    gathered,
    painted_pixels,
    prior_head,
    resized,
)
from s5mars.labels.loop.picture import read_picture
from s5mars.labels.loop.queue import Candidate, Ranked, rank
from s5mars.labels.loop.store import Store
from s5mars.labels.loop.suggestion import Suggestion, as_suggestion
from s5mars.labels.loop.superpixels import SuperpixelCache, smoothed, start_segmenting
from s5mars.parallel.workers import CrashError, Processes

logger = logging.getLogger("s5mars")

PAUSE_SECONDS = 0.35
"""Pause in seconds after the last stroke before a head is fitted."""

GRID = 10
"""Number of grid points along the longer side of an unpainted image, for ranking."""

SCORED_PIXELS = 4000
"""Painted pixels of a held-back image that the score is measured on."""

_IMAGES_IN_MEMORY = 4


class Assistant:
    """The work beside the painting."""

    def __init__(self, store: Store, model: StartModel) -> None:
        self.store = store
        self.model = model
        self.names = list(store.folder.images)
        self.classes = store.folder.taxonomy.names
        folder = store.folder.state / "cache"
        self.pyramids = PyramidCache(folder / "features", model)
        self.superpixels = SuperpixelCache(folder / "superpixels")
        self.head: Head | None = None
        self.fits = 0  # number of the head, which grows with each fit
        self.queue: list[Ranked] = []
        self.featured: set[str] = set()
        self.segmented: set[str] = set()
        self.failures = Failures()  # of features and superpixels
        self._undescribed: set[str] = set()  # those of them without features
        # Both take the name of an image; files do not change while the page is open.
        self._digest = cache(lambda name: file_digest(store.folder.images[name]))
        self.picture = lru_cache(_IMAGES_IN_MEMORY)(
            lambda name: read_picture(store.folder.images[name])
        )
        self._painted: dict[str, PaintedPixels] = {}
        self._scored: dict[str, PaintedPixels] = {}
        self._summaries: dict[str, NDArray[np.float32]] = {}
        self._places: dict[str, Tensor] = {}
        self._suggested: OrderedDict[tuple[str, str], Suggestion] = OrderedDict()
        self._prior: Head | None = None  # the start model's own classes
        self._score_head: Head | None = None
        self._current: str | None = None
        self._dirty: set[str] = set(store.painted)
        self._ranked_again = True
        self._changed_at = 0.0
        self._wake = threading.Condition(threading.Lock())
        self._processes: Processes[Path, Any] = Processes(start_segmenting, most=1)
        self._work = [
            Background("head", self._next_job, wake=self._wake, pause=self._until_next),
            Background("superpixels", self._next_segmented, wake=self._wake, pause=lambda: 5.0),
        ]

    @property
    def failed(self) -> Mapping[str, str]:
        """Images without features or superpixels, and why."""
        return self.failures.reasons

    @property
    def waiting(self) -> int:
        """Number of images whose features are still to be computed."""
        return sum(map(self._lacks_features, self.names))

    def start(self) -> None:
        """Begin the work."""
        for work in self._work:
            work.start()

    def stop(self) -> None:
        """End it; waits for what is in hand, which takes a second or two."""
        for work in self._work:
            work.stop()
        self._processes.close()

    def look_at(self, name: str) -> None:
        """Put an image first."""
        with self._wake:
            self._current = name
            self._wake.notify_all()

    def painted(self, name: str) -> None:
        """A stroke has changed an image."""
        with self._wake:
            self._dirty.add(name)
            self._changed_at = time.monotonic()
            self._wake.notify_all()

    def marked(self) -> None:
        """An image is done or skipped: the queue changes."""
        with self._wake:
            self._ranked_again = True
            self._wake.notify_all()

    def regions(self, name: str) -> NDArray[np.uint16] | None:
        """Superpixels of an image, or None if they are not made yet."""
        return self.superpixels.get(self._digest(name))

    def suggestion_key(self, name: str) -> str | None:
        """A key that changes when a better suggestion is available; None if there is none yet."""
        if self.head is None or name not in self.featured:
            return None
        smooth = name in self.segmented and name not in self.failed
        return f"{self.fits}-{smooth:d}"

    def suggestion(self, name: str) -> tuple[str, Suggestion] | None:
        """The newest head's map of an image with its key; None if there is none yet."""
        with self._wake:
            head, key = self.head, self.suggestion_key(name)
            if head is None or key is None:
                return None
            if (name, key) in self._suggested:
                return key, self._suggested[name, key]
        pyramid = self.pyramids.get(self._digest(name))
        if pyramid is None:
            return None
        picture = self.picture(name)
        regions = self.regions(name) if name in self.segmented else None
        with torch.inference_mode():
            if regions is None:
                probabilities = head.map(pyramid, picture.size)
            else:
                small = head.map(pyramid, (regions.shape[1], regions.shape[2]))
                probabilities = resized(
                    torch.from_numpy(smoothed(small.numpy(), regions)), picture.size
                )
            confidence, labels = probabilities.max(0)
        made = as_suggestion(labels.numpy(), confidence.numpy(), picture.valid)
        with self._wake:
            self._suggested[name, key] = made
            while len(self._suggested) > _IMAGES_IN_MEMORY:
                self._suggested.popitem(last=False)
        return key, made

    # The thread of the head.

    def _until_next(self) -> float | None:
        now = time.monotonic()
        pauses = []
        if self._dirty and (pause := self._changed_at + PAUSE_SECONDS - now) > 0:
            pauses.append(pause)
        if (pause_of_retry := self.failures.pause(now)) is not None:
            pauses.append(pause_of_retry)
        return min(pauses, default=None)

    def _next_job(self) -> Job | None:
        if (again := self.failures.due(time.monotonic())) is not None:
            self._retry(again)
        current = self._current
        if current is not None and self._lacks_features(current):
            return partial(self._describe, current)
        ready = {name for name in self._dirty if not self._lacks_features(name)}
        if ready and time.monotonic() - self._changed_at >= PAUSE_SECONDS:
            return partial(self._fit, ready)
        for name in self._dirty:
            if self._lacks_features(name):
                return partial(self._describe, name)
        if self._ranked_again:
            return self._rank
        order = [ranked.name for ranked in self.queue] or self.names
        for name in (*order, *self.names):
            if self._lacks_features(name):
                return partial(self._describe, name)
        return None

    def _lacks_features(self, name: str) -> bool:
        return name not in self.featured and name not in self._undescribed

    def _retry(self, name: str) -> None:
        self.segmented.discard(name)
        self._undescribed.discard(name)
        if name in self.store.counts:
            self._dirty.add(name)
        self._ranked_again = True

    def _retry_soon(self) -> None:
        with self._wake:
            self.failures.hurry()
            self._wake.notify_all()

    def _fail(self, name: str, error: UserError | OSError | CrashError) -> None:
        with self._wake:
            self.failures.add(name, error, now=time.monotonic())
            self._wake.notify_all()

    def _describe(self, name: str) -> None:
        """Compute the features of an image, or read them from disk."""
        try:
            digest = self._digest(name)
            pyramid = self.pyramids.get(digest)
            if pyramid is None:
                pyramid = self.model.pyramid(self.picture(name).image)
                self.pyramids.put(digest, pyramid)
                self._retry_soon()
        except (UserError, OSError) as error:
            with self._wake:
                self._undescribed.add(name)
                self._dirty.discard(name)
            self._fail(name, error)
            return
        if self.head is None and self.fits == 0:
            channels = sum(len(level) for level in pyramid)
            self.head = self._prior = prior_head(self.model, channels, self.classes)
        self._summaries[name], self._places[name] = overview(pyramid)
        with self._wake:
            self.featured.add(name)
            waiting = self.waiting
            # Ranking all images after each would take longer than the features themselves.
            if len(self.featured) % 8 == 0 or not waiting:
                self._ranked_again = True

    def _fit(self, names: set[str]) -> None:
        """Fit the head to the newest paint; then the one that the score is measured with."""
        with self._wake:
            self._dirty -= names
        for name in names:
            self._painted.pop(name, None)
            self._scored.pop(name, None)
            if name not in self.store.counts:
                continue
            pyramid = self.pyramids.get(self._digest(name))
            if pyramid is None:  # the file was removed or damaged
                with self._wake:
                    self.featured.discard(name)
                    if self._lacks_features(name):
                        self._dirty.add(name)
                continue
            try:
                labels = self.store.labels(name)
            except (UserError, OSError) as error:  # another program has removed or damaged the mask
                logger.warning("suggestions are made without the paint of %s: %s", name, error)
                continue
            split = self.store.splits.of(name)
            if split in (None, "train", "val"):
                self._painted[name] = painted_pixels(pyramid, labels)
            if split == "val":
                self._scored[name] = painted_pixels(
                    pyramid, labels, most=SCORED_PIXELS, balanced=False
                )
        head = fit_head(list(self._painted.values()), len(self.classes), start=self.head)
        with self._wake:
            self.head = head or self._prior
            self.fits += 1
            self._ranked_again = True
            painting = time.monotonic() - self._changed_at < PAUSE_SECONDS
        if not painting:
            self._score()

    def _score(self) -> None:
        """Record the score on the held-back images of a head that was not fitted to them.

        Nothing is recorded while features of painted images are missing, as after a restart: a part
        of the images has another score.
        """
        if any(self._lacks_features(name) for name in self.store.painted):
            return
        seen = [painted for name, painted in self._painted.items() if name not in self._scored]
        head = fit_head(seen, len(self.classes), start=self._score_head)
        if head is None or not self._scored:
            return
        self._score_head = head
        confusion = Confusion(len(self.classes))
        for painted in self._scored.values():
            predicted = head.logits(painted.features).argmax(1)
            confusion.update(painted.labels.numpy(), predicted.numpy())
        with self.store.lock:
            self.store.history.append(
                "score",
                miou=round(100 * confusion.mIoU, 2),
                images=len(self._painted),
                held_back=len(self._scored),
            )

    def _rank(self) -> None:
        with self._wake:
            self._ranked_again = False
        head = self.head
        painted = set(self.store.painted)
        candidates = []
        for name in self.names:
            known = name in self.failed or self.store.splits.of(name)
            if known or not self.store.is_open(name):
                continue
            places = self._places.get(name)
            probabilities = None
            if head is not None and places is not None:
                probabilities = head.logits(places).softmax(1).numpy()
            candidates.append(
                Candidate(name, self.store.sols[name], self._summaries.get(name), probabilities)
            )
        sols: dict[int, int] = {}
        for name in painted:
            sol = self.store.sols[name]
            if sol is not None:
                sols[sol] = sols.get(sol, 0) + 1
        pixels = sum(self.store.counts.values(), np.zeros(len(self.classes), np.int64))
        summaries = [self._summaries[name] for name in painted if name in self._summaries]
        self.queue = rank(
            candidates,
            painted_sols=sols,
            painted_summaries=summaries,
            painted_pixels=pixels,
            classes=self.classes,
        )

    # The thread of the superpixels.

    def _next_segmented(self) -> Job | None:
        first = [self._current] if self._current is not None else []
        order = (*first, *(ranked.name for ranked in self.queue), *self.names)
        name = next((name for name in order if name not in self.segmented), None)
        return None if name is None else partial(self._segment, name)

    def _segment(self, name: str) -> None:
        try:
            digest = self._digest(name)
            if self.superpixels.get(digest) is None:
                regions = self._processes(self.store.folder.images[name])
                self.superpixels.put(digest, regions)
                self._retry_soon()
        except (UserError, OSError, CrashError) as error:
            self._fail(name, error)
        finally:
            self.segmented.add(name)


def overview(pyramid: Pyramid) -> tuple[NDArray[np.float32], Tensor]:
    """What the ranking needs of an image: (C,) mean features, (P, C) features on a coarse grid."""
    height, width = pyramid[0].shape[-2:]
    counts = (max(1, round(GRID * side / max(height, width))) for side in (height, width))
    axes = ((np.arange(count) + 0.5) / count for count in counts)
    rows, columns = np.meshgrid(*axes, indexing="ij")
    # Colours and height, the first map, would say more about the time of day than about terrain.
    means = torch.cat([F.adaptive_avg_pool2d(m.float(), 1)[:, 0, 0] for m in pyramid[1:]])
    return means.numpy(), gathered(pyramid, rows.ravel(), columns.ravel())
