"""Draw images with the object masks that training may paste (as figure 7 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from s5mars.data.read import read_image
from s5mars.data.resolution import fitted
from s5mars.errors import UserError, require_limit
from s5mars.files import write_figure
from s5mars.proposals.command import samples_of
from s5mars.proposals.draw import ObjectFilter, check_size, decode_window, qualified
from s5mars.proposals.store import ObjectStore
from s5mars.randomness import generator
from s5mars.types import Sample

SIDE = 512
"""Maximum length of the longer side of an image, in pixels."""

OPACITY = 0.55

_EDGE = np.array((255, 255, 255), np.uint8)


def show_masks(
    data: Path,
    store: Path,
    out: Path,
    *,
    split: str = "train",
    images: int = 6,
    seed: int = 0,
    splits: Path | None = None,
) -> Path:
    """Write a PNG file with every image beside its kept masks, each in its own colour.

    A mask is kept if it passes ``ObjectFilter``, that is, if training may paste it. It is smoothed
    as in training.

    Args:
        store: path to a Parquet file or a folder of shards.
        split: split to take images from, or ``all``.
        images: number of images, drawn at random from those in the store.
        splits: folder of the split lists; see ``open_dataset``.

    Raises:
        UserError: if the store has none of the images, a mask and its image differ in size,
            ``images`` is below 1, ``seed`` is negative, or ``out`` does not end in .png.
        MissingFileError: if the data folder or the store does not exist.
    """
    if out.suffix.lower() != ".png":
        raise UserError(f"--out must end in .png (got {out})")
    require_limit("at least 1", **{"--images": images})
    require_limit("at least 0", **{"--seed": seed})
    opened = ObjectStore(store)
    samples = samples_of(data, split, splits)
    known = [sample for sample in samples if sample.name in opened]
    if not known:
        opened.check(sample.name for sample in samples)
    order = generator(seed, "masks to show").permutation(len(known))[:images]
    write_figure(out, _sheet([known[int(k)] for k in order], opened))
    return out


def coloured(image: NDArray[np.uint8], masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Blend masks, each (H, W) bool, into an image (H, W, 3) uint8, large masks first.

    Each mask has its own colour and a white border, so that neighbours can be distinguished.
    """
    shown = image.astype(np.float32)
    palette = colormaps["hsv"](np.linspace(0, 1, max(1, len(masks)), endpoint=False))[:, :3] * 255
    edge = np.zeros(image.shape[:2], bool)
    for k in sorted(range(len(masks)), key=lambda k: -int(masks[k].sum())):
        mask = masks[k]
        shown[mask] = (1 - OPACITY) * image[mask] + OPACITY * palette[k]
        edge = (edge & ~mask) | (mask & ~ndimage.binary_erosion(mask))
    picture = shown.round().astype(np.uint8)
    picture[edge] = _EDGE
    return picture


def _tile(sample: Sample, store: ObjectStore) -> tuple[NDArray[np.uint8], NDArray[np.uint8], str]:
    image = read_image(sample.image)
    height, width = image.shape[:2]
    settings = ObjectFilter()
    proposals = store.proposals(sample.name)
    kept = [proposals[rank] for rank in qualified(store, sample.name, filter=settings)]
    size = fitted(width, height, SIDE)
    masks = []
    for proposal in kept:
        check_size(proposal, sample, (height, width))
        masks.append(
            decode_window(proposal, box=(0, 0, width, height), size=size[::-1], blur=settings.blur)
        )
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    return small, coloured(small, masks), f"{len(kept)} of {len(proposals)} masks"


def _sheet(samples: Sequence[Sample], store: ObjectStore) -> Figure:
    columns = min(3, len(samples))
    lines = math.ceil(len(samples) / columns)
    figure = Figure(figsize=(5.2 * columns, 2.9 * lines + 0.6), layout="constrained")
    figure.suptitle(f"Masks that may be pasted; {store.description}", fontsize=10)
    places = figure.subplots(lines, 2 * columns, squeeze=False).flat
    for axes in places:
        axes.set_axis_off()
    for k, sample in enumerate(samples):
        image, masks, words = _tile(sample, store)
        for axes, picture, title in (
            (figure.axes[2 * k], image, sample.name),
            (figure.axes[2 * k + 1], masks, words),
        ):
            axes.imshow(picture)
            axes.set_title(title, fontsize=7)
    return figure
