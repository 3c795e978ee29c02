"""What of an image is scored, and scoring a list of images."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s5mars.classes import IGNORE, MaskCoding
from s5mars.data.read import open_pair
from s5mars.errors import UserError
from s5mars.evaluation.confusion import Confusion
from s5mars.parallel.ahead import ahead
from s5mars.predict.predictor import Predictor
from s5mars.types import Sample


@dataclass(frozen=True)
class Protocol:
    """The part of each image that is predicted and scored."""

    name: str
    crop: int | None  # side of the square in the middle; None for the whole image
    words: str


PROTOCOLS: dict[str, Protocol] = {
    "full": Protocol("full", None, "the whole image"),
    "paper": Protocol(
        "paper", 1024, "the square of 1024 pixels in the middle, or all where a side is shorter"
    ),
}
"""``paper`` is the test of section V-B; ``full`` leaves no labelled pixel out."""


@dataclass(frozen=True)
class ImageScore:
    """One image; its matrix is all zeros where it has no labelled pixel."""

    name: str
    confusion: Confusion


@dataclass(frozen=True)
class Evaluation:
    """The matrix of all pixels of all images, and those of the images, which add up to it."""

    confusion: Confusion
    images: tuple[ImageScore, ...]

    @property
    def without_labels(self) -> int:
        """Number of images in which no pixel is labelled; they change no score."""
        return sum(not image.confusion.support.any() for image in self.images)


def find_protocol(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        UserError: listing the choices.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    near = difflib.get_close_matches(name, PROTOCOLS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(f"no protocol {name!r}; there are {', '.join(PROTOCOLS)}{hint}")


def evaluate_samples(
    predictor: Predictor,
    samples: Sequence[Sample],
    coding: MaskCoding,
    *,
    protocol: str = "full",
    progress: Callable[[], object] | None = None,
) -> Evaluation:
    """Predict samples and count right and wrong pixels, each labelled pixel once.

    Args:
        predictor: see ``s5mars.load``; windows are laid over what the protocol leaves.
        samples: with masks.
        coding: of their masks.
        protocol: a key of ``PROTOCOLS``.
        progress: called after each image.

    Raises:
        MissingFileError: if an image or a mask is missing.
        UserError: if the protocol is unknown, a file is damaged, sizes differ, a mask holds
            unknown ids, or no pixel of all the images is labelled.
    """
    crop = find_protocol(protocol).crop
    classes = len(predictor.taxonomy)
    images = []
    total = Confusion(classes)
    read = partial(_read, coding=coding, crop=crop)
    for sample, (image, truth) in zip(samples, ahead(read, samples), strict=True):
        confusion = Confusion(classes)
        if (truth != IGNORE).any():  # else no answer of the network can change a score
            confusion.update(truth, predictor.predict(image))
        images.append(ImageScore(sample.name, confusion))
        total += confusion
        if progress is not None:
            progress()
    if not total.support.any():
        raise UserError(f"nothing to score: no labelled pixel in {len(images)} images")
    return Evaluation(total, tuple(images))


def _read(
    sample: Sample, *, coding: MaskCoding, crop: int | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    pair = open_pair(sample, coding)
    image, label = pair if crop is None else (_centre(part, crop) for part in pair)
    return np.asarray(image), np.asarray(label)


def _centre(image: Image.Image, side: int) -> Image.Image:
    width, height = min(side, image.width), min(side, image.height)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
