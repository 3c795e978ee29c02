"""Looking for everything that is wrong with the files of a data set, before long work starts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from s5mars.classes import MaskCoding
from s5mars.data.dataset import Dataset
from s5mars.data.read import (
    UnknownIdsError,
    listed_ids,
    open_hidden,
    open_image,
    open_label,
    size_mismatch,
)
from s5mars.errors import DamagedFileError, MissingFileError, UserError
from s5mars.parallel.mapping import map_images
from s5mars.types import Sample

logger = logging.getLogger("s5mars")

Kind = Literal["no mask", "damaged", "missing", "size", "unknown ids", "values"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one sample."""

    kind: Kind
    sample: Sample
    message: str  # one line that names the file and the way out
    ids: Mapping[int, int] = field(default_factory=dict)  # unknown mask id → number of pixels


@dataclass(frozen=True)
class Audit:
    """What was looked at, and what is wrong with it."""

    root: Path
    images: int
    masks: int
    problems: tuple[Problem, ...]

    @property
    def unknown_ids(self) -> dict[int, int]:
        """Mask ids that the taxonomy does not know → number of pixels, over all masks."""
        total: Counter[int] = Counter()
        for problem in self.problems:
            total.update(problem.ids)
        return dict(sorted(total.items()))

    @property
    def lines(self) -> list[str]:
        """One line a problem; unknown ids of all masks share one line, which comes first."""
        affected = [problem for problem in self.problems if problem.ids]
        others = [problem.message for problem in self.problems if not problem.ids]
        if not affected:
            return others
        return [
            f"{self.root}: {len(affected)} mask(s) hold ids that the taxonomy does not know: "
            f"{listed_ids(self.unknown_ids)}; the first is {affected[0].sample.mask}: give them to "
            "a class or to `ignore` in dataset.yaml",
            *others,
        ]

    def require_clean(self) -> None:
        """Raise the first line, and how many more there are, as a ValueError, if there are any."""
        if self.problems:
            lines = self.lines
            more = f" (and {len(lines) - 1} more problems)" if len(lines) > 1 else ""
            raise UserError(lines[0] + more)


def audit(dataset: Dataset, *, splits: Sequence[str] | None = None) -> Audit:
    """Decode every image and mask, and list what is wrong.

    Looked for: an image without mask in a split, image and mask of different size, mask ids that
    the taxonomy does not know, truncated and non-image files. (Split lists that name unknown
    files are refused by ``open_dataset`` already.)

    Args:
        dataset: what to look at.
        splits: their names; None: all of them, and the unlabelled images.
    """
    filled = [name for name, listed in dataset.splits.items() if listed]
    chosen = filled if splits is None else splits
    samples = {
        (sample.image, sample.mask): sample for name in chosen for sample in dataset.split(name)
    }
    without = [
        Problem(
            "no mask",
            sample,
            f"{sample.image}: in a split, but has no mask: add one, or take the image out of "
            "the split's list",
        )
        for sample in samples.values()
        if sample.mask is None
    ]
    everything = [*samples.values(), *(dataset.unlabelled if splits is None else ())]
    _, problems = readable(everything, dataset.coding)
    masks = sum(sample.mask is not None for sample in everything)
    return Audit(dataset.root, len(everything), masks, (*without, *problems))


def readable(
    samples: Sequence[Sample], coding: MaskCoding
) -> tuple[tuple[Sample, ...], tuple[Problem, ...]]:
    """Decode the images, and the masks where there are any.

    A sample whose mask was withheld has only its image decoded, so the labels outside a
    labelled partition stay closed.

    Returns:
        The good samples, in order, and what is wrong with the others.
    """

    def check(sample: Sample) -> Problem | None:
        return _problem(sample, coding)

    found = list(map_images(check, samples, description="checking files"))
    good = tuple(sample for sample, problem in zip(samples, found, strict=True) if problem is None)
    return good, tuple(problem for problem in found if problem is not None)


def checked(
    samples: Sequence[Sample], coding: MaskCoding, *, skip_bad: bool = False
) -> tuple[Sample, ...]:
    """The samples, if all of their files can be read; ``undamaged`` states the rest.

    Warns how many were left out.

    Raises:
        UserError: also if nothing is left.
    """
    good, damaged = undamaged(samples, coding, skip_bad=skip_bad)
    report_skipped(damaged)
    if not good:
        raise UserError("no readable image is left: all of them are damaged")
    return good


def undamaged(
    samples: Sequence[Sample], coding: MaskCoding, *, skip_bad: bool = False
) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """The samples whose files can be read, and one line for each of the others.

    Args:
        samples: as ``withhold`` leaves them.
        coding: of their masks.
        skip_bad: leave out samples with a truncated or non-image file, instead of stopping. Other
            problems stop in any case: they are mistakes, not damage.

    Raises:
        UserError: the first problem, in one line, and how many more there are.
    """
    good, problems = readable(samples, coding)
    fatal = [problem for problem in problems if not (skip_bad and problem.kind == "damaged")]
    if fatal:
        more = f" (and {len(fatal) - 1} more such problems)" if len(fatal) > 1 else ""
        raise UserError(fatal[0].message + more)
    return good, tuple(problem.message for problem in problems)


def report_skipped(messages: Iterable[str]) -> None:
    """Say how many samples were left out, if any, and name the first."""
    listed = list(messages)
    if listed:
        logger.warning(
            "%d image(s) with damaged files left out; the first: %s", len(listed), listed[0]
        )


def _problem(sample: Sample, coding: MaskCoding) -> Problem | None:
    try:
        image = open_image(sample.image)
        if sample.mask is not None:
            label = open_label(sample, coding)
            if label.size != image.size:
                return Problem("size", sample, size_mismatch(sample, image.size, label.size))
        elif sample.hide:
            open_hidden(sample, size=image.size)
    except DamagedFileError as error:
        return Problem("damaged", sample, str(error))
    except UnknownIdsError as error:
        return Problem("unknown ids", sample, str(error), error.ids)
    except MissingFileError as error:
        return Problem("missing", sample, str(error))
    except UserError as error:
        return Problem("values", sample, str(error))
    return None
