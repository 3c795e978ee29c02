"""Evaluation protocols, and the evaluation of a list of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from s5mars.classes import IGNORE, MaskCoding
from s5mars.data.read import open_pair
from s5mars.errors import UserError, require_choice
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
class Evaluation:
    """The confusion matrix of all images, and those of the single images, which sum to it."""

    confusion: Confusion
    images: Mapping[str, Confusion]  # by name; zero if no pixel of an image is labelled
    ignored_by_map: int = 0  # labelled pixels of classes that a class map leaves out

    @property
    def without_labels(self) -> int:
        """Number of images without any labelled pixel; they change no score."""
        return sum(not confusion.support.any() for confusion in self.images.values())


def find_protocol(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        UserError: if it does not exist (the message lists the choices).
    """
    require_choice(name, PROTOCOLS, name="--protocol", suggest=True)
    return PROTOCOLS[name]


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
        protocol: a key of ``PROTOCOLS``.
        mapped: for samples with other classes than the model; the matrices are of its classes.

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
    images = {}
    total = Confusion(classes)
    ignored = 0
    read = partial(read_pair, coding=coding, crop=crop)
    for sample, (image, truth) in zip(samples, ahead(read, samples), strict=True):
        confusion = Confusion(classes)
        if mapped is not None:
            labelled = int(np.count_nonzero(truth != IGNORE))
            truth = mapped.truth(truth)
            ignored += labelled - int(np.count_nonzero(truth != IGNORE))
        if (truth != IGNORE).any():  # else no prediction can change a score
            confusion.update(truth, predict(image))
        images[sample.name] = confusion
        total += confusion
        if progress is not None:
            progress()
    if not total.support.any():
        kind = "labelled pixel" if mapped is None else "pixel of a mapped class"
        raise UserError(f"cannot evaluate: no {kind} in {len(images):,} images")
    return Evaluation(total, images, ignored)


def read_pair(
    sample: Sample, coding: MaskCoding, *, crop: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(H, W, 3) image and (H, W) class indices of a sample, uint8; their ``centre`` if cropped.

    Raises:
        UserError: as ``data.read.open_pair``.
    """
    image, label = (centre(np.asarray(part), crop) for part in open_pair(sample, coding))
    return image, label


def centre(array: NDArray[np.uint8], crop: int | None) -> NDArray[np.uint8]:
    """The centre crop of side ``crop`` of an array (H, W, ...), or less; all of it for None."""
    if crop is None:
        return array
    height, width = array.shape[:2]
    top, left = max(0, (height - crop) // 2), max(0, (width - crop) // 2)
    return array[top : top + crop, left : left + crop]
