"""Evaluation protocols, and the evaluation of a list of images."""

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
from s5mars.evaluation.class_map import MappedClasses
from s5mars.evaluation.confusion import Confusion
from s5mars.parallel.ahead import ahead
from s5mars.predict.predictor import Predictor
from s5mars.types import Sample


@dataclass(frozen=True)
class Protocol:
    """The part of each image that is predicted and scored."""

    name: str
    crop: int | None  # side of the centre crop in pixels; None for the whole image
    words: str


PROTOCOLS: dict[str, Protocol] = {
    "full": Protocol("full", None, "the whole image"),
    "paper": Protocol(
        "paper", 1024, "the centre square of 1024 pixels, or the whole side if it is shorter"
    ),
}
"""``paper`` is the protocol of section V-B; ``full`` scores every labelled pixel."""


@dataclass(frozen=True)
class ImageScore:
    """Score of one image; its matrix is zero if no pixel is labelled."""

    name: str
    confusion: Confusion


@dataclass(frozen=True)
class Evaluation:
    """The confusion matrix of all images, and those of the single images, which sum to it."""

    confusion: Confusion
    images: tuple[ImageScore, ...]
    ignored_by_map: int = 0  # labelled pixels of classes that a class map leaves out

    @property
    def without_labels(self) -> int:
        """Number of images without any labelled pixel; they change no score."""
        return sum(not image.confusion.support.any() for image in self.images)


def find_protocol(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        UserError: if it does not exist (the message lists the choices).
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    near = difflib.get_close_matches(name, PROTOCOLS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(f"--protocol must be one of {', '.join(PROTOCOLS)} (got {name!r}){hint}")


def evaluate_samples(
    predictor: Predictor,
    samples: Sequence[Sample],
    coding: MaskCoding,
    *,
    protocol: str = "full",
    mapped: MappedClasses | None = None,
    progress: Callable[[], object] | None = None,
) -> Evaluation:
    """Predict samples and compute their confusion matrices.

    Args:
        predictor: see ``s5mars.load``; windows cover the part that the protocol selects.
        samples: samples with masks.
        coding: coding of the masks.
        protocol: a key of ``PROTOCOLS``.
        mapped: for samples with other classes than the model; the matrices are of its classes.
        progress: called after each image.

    Raises:
        MissingFileError: if an image or a mask is missing.
        UserError: if the protocol is unknown, the predictor abstains, a file is damaged, sizes
            differ, a mask contains unknown ids, or no pixel is labelled in any image.
    """
    if predictor.inference.abstain is not None:
        raise UserError(
            f"scores count every labelled pixel, so evaluate without abstain (got "
            f"{predictor.inference.abstain:g}); `s5mars calibrate` shows what abstaining changes"
        )
    crop = find_protocol(protocol).crop
    classes = len(predictor.taxonomy if mapped is None else mapped.taxonomy)
    predict = predictor.predict if mapped is None else partial(mapped.predict, predictor)
    images = []
    total = Confusion(classes)
    ignored = 0
    read = partial(_read, coding=coding, crop=crop)
    for sample, (image, truth) in zip(samples, ahead(read, samples), strict=True):
        confusion = Confusion(classes)
        if mapped is not None:
            labelled = int(np.count_nonzero(truth != IGNORE))
            truth = mapped.truth(truth)
            ignored += labelled - int(np.count_nonzero(truth != IGNORE))
        if (truth != IGNORE).any():  # else no prediction can change a score
            confusion.update(truth, predict(image))
        images.append(ImageScore(sample.name, confusion))
        total += confusion
        if progress is not None:
            progress()
    if not total.support.any():
        kind = "labelled pixel" if mapped is None else "pixel of a mapped class"
        raise UserError(f"cannot evaluate: no {kind} in {len(images)} images")
    return Evaluation(total, tuple(images), ignored)


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
