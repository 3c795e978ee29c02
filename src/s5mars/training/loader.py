"""Makes batches from samples. One item of ``TrainingBatches`` is the batch of one step.

All randomness of sample k of step t depends only on (seed, t, k, stream), so the batches are the
same for any number of workers and, taken together, for any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from s5mars.classes import IGNORE, MaskCoding
from s5mars.data.crops import Crop, CropSettings, Pixel, draw_crop
from s5mars.data.read import missing_pixels, open_hidden, open_image, open_pair
from s5mars.data.sampler import Balance, image_index
from s5mars.products.no_data import has_black_edge, no_data
from s5mars.proposals.draw import ObjectFilter, check_size, decode_window, draw_object
from s5mars.proposals.store import ObjectStore
from s5mars.randomness import generator
from s5mars.types import Batch, Crops, Sample

NO_DATA_STEP = 2
"""No-data borders are searched on every second pixel, because they are straight and wide."""


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
