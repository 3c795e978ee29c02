"""Makes batches from samples. One item of ``TrainingBatches`` is the batch of one step.

All randomness of sample k of step t depends only on (seed, t, k, stream), so the batches are the
same for any number of workers and, taken together, for any number of processes.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from s5mars.classes import IGNORE, MaskCoding
from s5mars.data.crops import Crop, CropSettings, Pixel, draw_crop
from s5mars.data.read import missing_pixels, open_hidden, open_image, open_pair
from s5mars.data.sampler import Balance, image_index
from s5mars.errors import UserError
from s5mars.parallel.workers import ended
from s5mars.products.no_data import has_black_edge, no_data
from s5mars.proposals.draw import ObjectFilter, check_size, decode_window, draw_object
from s5mars.proposals.store import ObjectStore
from s5mars.randomness import generator
from s5mars.training.shared_memory import (
    MORE_ROOM,
    NO_ROOM,
    PLACE,
    end_without_room,
    fitting_workers,
)
from s5mars.types import Batch, Crops, Sample

NO_DATA_STEP = 2
"""No-data borders are searched on every second pixel, because they are straight and wide."""

PATIENCE_SECONDS = 600
"""Maximum time to wait for a batch before the loader counts as stuck."""


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """Contents of a batch and how they are drawn."""

    seed: int
    batch: int  # images per stream, over all processes
    crop: CropSettings
    coding: MaskCoding
    objects: ObjectStore | None = None  # None: draw no objects
    object_filter: ObjectFilter = field(default_factory=ObjectFilter)
    balance: Balance | None = None  # of the labelled stream; None: images in random order
    pool_from: int = 0  # first step with pool and objects, after the warm-up
    rank: int = 0
    world: int = 1

    @property
    def local(self) -> range:
        """Sample numbers of this process."""
        share = self.batch // self.world
        return range(self.rank * share, (self.rank + 1) * share)


class TrainingBatches(Dataset[Batch]):
    """Batches of a run, for steps in ``range(steps)``.

    The pool is the second stream, with masks only where they may be read; None if the method does
    not need it.
    """

    def __init__(
        self,
        labelled: Sequence[Sample],
        pool: Sequence[Sample] | None,
        *,
        steps: int,
        settings: LoaderSettings,
    ) -> None:
        self.streams = {"labelled": tuple(labelled)}
        if pool is not None:
            self.streams["pool"] = tuple(pool)
        self.steps = steps
        self.settings = settings

    def __len__(self) -> int:
        return self.steps

    @property
    def bytes_each(self) -> int:
        """Shared memory of a batch: image, label, validity and object of each pixel."""
        settings = self.settings
        pixels = len(settings.local) * settings.crop.size**2
        return len(self.streams) * 6 * pixels + 65536

    def __getitem__(self, step: int) -> Batch:
        settings = self.settings
        streams = {
            name: _stack([self._draw(name, samples, step, k) for k in settings.local])
            for name, samples in self.streams.items()
            if name == "labelled" or step >= settings.pool_from
        }
        return Batch(labelled=streams["labelled"], pool=streams.get("pool"))

    def _draw(
        self, stream: str, samples: Sequence[Sample], step: int, k: int
    ) -> dict[str, NDArray[np.generic]]:
        settings = self.settings
        position = step * settings.batch + k
        index = image_index(settings.seed, stream, position=position, size=len(samples))
        around = None
        if stream == "labelled" and settings.balance is not None:
            rng = generator(settings.seed, "class of a crop", step=step, sample=k)
            around, index = settings.balance.draw(rng) or (None, index)
        rng = generator(settings.seed, f"crop of {stream}", step=step, sample=k)
        pasted = stream == "labelled" and step >= settings.pool_from
        objects = settings.objects if pasted else None
        return load_crop(samples[index], rng=rng, settings=settings, objects=objects, around=around)


def load_crop(
    sample: Sample,
    *,
    rng: np.random.Generator,
    settings: LoaderSettings,
    objects: ObjectStore | None,
    around: int | None = None,
) -> dict[str, NDArray[np.generic]]:
    """Read one sample and crop it: image, label, valid and, with ``objects``, objects.

    Args:
        sample: Sample to read; without a mask every label is IGNORE.
        objects: Store to draw an object from; None to draw none.
        around: Class that the crop must show, if the sample has it.

    Raises:
        UserError: if image and mask, or image and object masks, differ in size, and as the
            readers.
    """
    mask: Image.Image | None = None
    if sample.mask is None:
        image = open_image(sample.image)
    else:  # without applying ``sample.hide`` to the label: hidden pixels are not valid anyway
        image, mask = open_pair(replace(sample, hide=()), settings.coding)
    width, height = image.size
    hidden = open_hidden(sample, size=image.size) if sample.hide else None
    pixel = None if around is None or mask is None else _pixel_of(around, mask, hidden, rng)
    crop = draw_crop(width, height, settings=settings.crop, rng=rng, around=pixel)
    valid = crop.inside(width, height)
    border = _no_data(image, crop)
    if border is not None:
        valid = valid & ~border
    if hidden is not None:
        valid = valid & ~crop.mask(hidden, outside=1).astype(bool)
    if mask is not None:
        label = np.where(valid, crop.mask(mask, outside=IGNORE), np.uint8(IGNORE))
    else:
        label = np.full(valid.shape, IGNORE, np.uint8)
    arrays: dict[str, NDArray[np.generic]] = {
        "image": crop.image(image), "label": label, "valid": valid,
    }  # fmt: skip
    if objects is not None:
        arrays["objects"] = valid & _object(
            sample, objects, crop, rng, settings.object_filter, size=(height, width)
        )
    return arrays


class LoaderError(UserError):
    """A loader process died or does not answer; the message says why and what to do."""


class _Loader(DataLoader[Batch]):
    """DataLoader that raises a ``LoaderError`` for all failures of its processes."""

    def __iter__(self) -> Any:
        with _sigterm_blocked():
            batches = super().__iter__()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                if reason := _failure(getattr(batches, "_workers", ()), error):
                    raise LoaderError(reason) from error
                raise
            yield batch


def _failure(workers: Sequence[Any], error: BaseException) -> str:
    """Why no batch came; empty if no process failed."""
    if str(error).startswith("DataLoader timed out"):
        return (
            f"no batch came for {PATIENCE_SECONDS // 60} minutes: check that the data can be read, "
            "or use fewer --workers"
        )
    if not str(error).startswith("Caught ") and workers:
        # The exit code may come later than the error, and a little later than the sentinel.
        ended_now = wait([worker.sentinel for worker in workers], timeout=10)
        for worker in workers:
            if worker.sentinel in ended_now:
                worker.join(timeout=10)
    codes = [worker.exitcode for worker in workers if worker.exitcode]
    return _exit_message(codes[0]) if codes else ""


def worker_failure(error: BaseException | None) -> str:
    """Why a loader process died, from the error that torch's signal handler raises; or empty.

    The handler can interrupt any call of the main thread. If the call then fails as well, for
    example in a ``finally``, the handler's error is in the context of that error.
    """
    if error is None:
        return ""
    found = re.match(
        r"DataLoader worker \(pid.+?\) (?:is killed by signal: (?P<signal>[^.]+)|"
        r"exited unexpectedly with exit code (?P<code>\d+))",
        str(error),
    )
    if not found:
        return worker_failure(error.__context__)
    if found["code"]:
        return _exit_message(int(found["code"]))
    numbers = {signal.strsignal(number): number for number in signal.valid_signals()}
    return _exit_message(-numbers.get(found["signal"], signal.SIGKILL))


def _exit_message(code: int) -> str:
    if code in (NO_ROOM, -signal.SIGBUS):
        return f"a loader process found no space in {PLACE}: use fewer --workers; {MORE_ROOM}"
    return f"a loader process {'was ' if code < 0 else ''}{ended(code)}: use fewer --workers"


def training_loader(
    batches: TrainingBatches, *, start: int, workers: int, sharing: int = 1
) -> DataLoader[Batch]:
    """Return a loader of the batches from step ``start`` on, in order.

    Fewer ``workers`` are used if shared memory is short; ``sharing`` is the number of training
    processes on this machine.
    """
    workers, ahead = fitting_workers(workers, batch_bytes=batches.bytes_each, sharing=sharing)
    return _Loader(
        batches,
        batch_size=None,
        sampler=range(start, len(batches)),
        num_workers=workers,
        persistent_workers=False,
        prefetch_factor=ahead or None,
        timeout=PATIENCE_SECONDS if workers else 0,
        worker_init_fn=_begin,
    )


def _pixel_of(
    wanted: int, mask: Image.Image, hidden: Image.Image | None, rng: np.random.Generator
) -> Pixel | None:
    """Draw a pixel of a class that is not hidden; None if there is none."""
    shown = np.asarray(mask) == wanted
    if hidden is not None:
        shown &= np.asarray(hidden) == 0
    places = np.flatnonzero(shown)
    if not len(places):
        return None
    row, column = divmod(int(places[rng.integers(len(places))]), mask.width)
    return column, row


def _object(
    sample: Sample,
    store: ObjectStore,
    crop: Crop,
    rng: np.random.Generator,
    settings: ObjectFilter,
    *,
    size: tuple[int, int],
) -> NDArray[np.bool_]:
    # An image that is not in the store gets a rectangle, as one without a qualified mask.
    known = sample.name in store
    proposal = (
        draw_object(store, sample.name, rng, filter=settings, window=crop.window) if known else None
    )
    if proposal is None:
        return np.zeros((crop.size, crop.size), bool)
    check_size(proposal, sample, size)
    mask = decode_window(proposal, box=crop.window, size=(crop.size, crop.size), blur=settings.blur)
    return mask[:, ::-1] if crop.flip else mask


def _no_data(image: Image.Image, crop: Crop) -> NDArray[np.bool_] | None:
    """Missing pixels and black borders inside the crop; None if the image has none."""
    missing = missing_pixels(image)
    absent = None if missing is None else crop.mask(missing.convert("L"), outside=1).astype(bool)
    small = None
    if has_black_edge(image):
        step = (slice(None, None, NO_DATA_STEP), slice(None, None, NO_DATA_STEP))
        valid = None if missing is None else ~np.asarray(missing)[step]
        small = no_data(np.asarray(image)[step], valid=valid)
    if small is None or not small.any():
        return absent
    whole = Image.fromarray(small.astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST)
    border = crop.mask(whole, outside=1).astype(bool)
    return border if absent is None else border | absent


def _stack(crops: Sequence[dict[str, NDArray[np.generic]]]) -> Crops:
    def column(key: str) -> Tensor:
        return torch.from_numpy(np.stack([crop[key] for crop in crops]))

    return Crops(
        image=column("image").permute(0, 3, 1, 2),
        label=column("label"),
        valid=column("valid"),
        objects=column("objects") if "objects" in crops[0] else None,
    )


_CAN_WAIT = hasattr(signal, "sigwaitinfo")  # not on macOS


@contextmanager
def _sigterm_blocked() -> Iterator[None]:
    """Block SIGTERM, also in all threads of the processes that are forked meanwhile.

    ``_begin`` would be too late: some libraries start threads in every forked process, which would
    take the signal.
    """
    if not _CAN_WAIT:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(_: int) -> None:
    torch.set_num_threads(1)
    end_without_room()
    if _CAN_WAIT:
        threading.Thread(target=_end_with_the_run, daemon=True).start()


def _end_with_the_run() -> None:
    """End this loader process at a SIGTERM of the training process, and of no other.

    ``timeout``, SLURM and systemd send SIGTERM to all processes of a command; the training process
    needs its loader processes until it has saved.
    """
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
