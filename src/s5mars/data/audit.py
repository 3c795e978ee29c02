"""Checks every file that a run needs, before long work starts."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from s5mars.classes import MaskCoding
from s5mars.data.read import open_hidden, open_image, open_pair
from s5mars.errors import DamagedFileError, UserError
from s5mars.parallel.ahead import map_images
from s5mars.text.numbers import plural
from s5mars.types import Sample

logger = logging.getLogger("s5mars")


def readable_samples(
    samples: Sequence[Sample], coding: MaskCoding, *, skip_bad: bool = False
) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """Decode all images and masks, and return the samples whose files can be read.

    If the mask of a sample was withheld, only its image is decoded. So the labels outside the
    labelled partition are not opened.

    Args:
        skip_bad: Leave out samples with a damaged file instead of raising an error. Other problems
            raise an error in any case, because they are mistakes and not damage.

    Returns:
        The good samples in their order, and one line for each of the others.

    Raises:
        UserError: if a sample has a problem. The line describes the first problem and counts the
            others.
    """

    def problem_of(sample: Sample) -> UserError | None:
        try:
            if sample.mask is None:
                open_hidden(sample, size=open_image(sample.image).size)
            else:
                open_pair(sample, coding)
        except UserError as error:
            return error
        return None

    found = list(map_images(problem_of, samples, description="checking files"))
    problems = [problem for problem in found if problem is not None]
    fatal = [p for p in problems if not (skip_bad and isinstance(p, DamagedFileError))]
    if fatal:
        more = f" (and {len(fatal) - 1} more such problems)" if len(fatal) > 1 else ""
        raise UserError(f"{fatal[0]}{more}")
    good = tuple(sample for sample, problem in zip(samples, found, strict=True) if problem is None)
    return good, tuple(str(problem) for problem in problems)


def report_skipped(messages: Collection[str]) -> None:
    """Log how many samples were left out, and the first message; nothing if there are none."""
    if messages:
        logger.warning(
            "%s left out; the first: %s",
            plural(len(messages), "image with damaged files was", "images with damaged files were"),
            next(iter(messages)),
        )
