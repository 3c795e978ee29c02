"""A data set: samples in splits, classes, mask coding. ``layouts`` creates it from a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from s5mars.classes import MaskCoding, Taxonomy
from s5mars.errors import UserError, did_you_mean
from s5mars.types import Sample

_FOLDS = 5


@dataclass(frozen=True)
class Dataset:
    """Images and labels of one folder.

    ``splits`` keeps the order of the split lists, because index lists such as the ``0.2.txt`` of
    the authors contain positions in the train list.
    """

    root: Path
    layout: str  # key of `s5mars.data.layouts.LAYOUTS`
    taxonomy: Taxonomy
    coding: MaskCoding
    splits: Mapping[str, tuple[Sample, ...]]  # "train", "val", "test", and others of the layout
    unlabelled: tuple[Sample, ...] = ()  # images without a label; none of val or test
    ignored_by: str = ""  # for reports: what is ignored besides mask ids
    partitions: Mapping[str, Path] = field(default_factory=dict)  # name → list of labelled images
    unlisted: tuple[Sample, ...] = ()  # labelled images that the split lists leave out; not used

    def split(self, name: str) -> tuple[Sample, ...]:
        """Return the samples of one split, in the order of its list.

        Raises:
            UserError: if the split does not exist or is empty.
        """
        samples = self.splits.get(name, ())
        if samples:
            return samples
        filled = [key for key, value in self.splits.items() if value]
        hint = did_you_mean(name, filled)
        if name in ("val", "test"):
            way = way_to_score(len(self.splits.get("train", ())))
            hint = f": list images for it in splits/{name}.txt, or {way}"
        raise UserError(
            f"{self.root} has no split {name!r}, only {', '.join(filled) or 'empty ones'}{hint}"
        )

    def sample(self, name: str) -> Sample:
        """Return the sample with this name, whether a split lists it or not.

        Raises:
            UserError: if there is none; the message suggests the nearest name.
        """
        found = self._by_name.get(name)
        if found is not None:
            return found
        raise UserError(
            f"{self.root} has no image named {name!r}{did_you_mean(name, self._by_name)}"
        )

    def has(self, names: Iterable[str]) -> bool:
        """Whether all of these are names of images, whether a split lists them or not."""
        return self._by_name.keys() >= set(names)

    @cached_property
    def _by_name(self) -> dict[str, Sample]:
        sources = [self.unlisted, self.unlabelled, *reversed(list(self.splits.values()))]
        return {sample.name: sample for samples in sources for sample in samples}


def way_to_score(labelled: int) -> str:
    """How to get a score where no labelled image is set aside, in words.

    Args:
        labelled: number of labelled images.
    """
    if labelled < 2:
        return "label another image, because a score needs a second one"
    return f"use `s5mars train --folds {min(_FOLDS, labelled)}` to estimate a score"
