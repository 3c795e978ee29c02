"""A data set as the rest of the package sees it: samples in splits, classes, mask coding.

Nothing is opened here; ``layouts`` makes these from a folder.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from s5mars.classes import MaskCoding, Taxonomy
from s5mars.errors import UserError
from s5mars.types import Sample


@dataclass(frozen=True)
class Dataset:
    """Images and labels of one folder.

    ``splits`` keeps the order of the split lists, because index lists such as the authors'
    ``0.2.txt`` count positions in the train list.
    """

    root: Path
    layout: str  # a key of `s5mars.data.layouts.LAYOUTS`
    taxonomy: Taxonomy
    coding: MaskCoding
    splits: Mapping[str, tuple[Sample, ...]]  # "train", "val", "test", and what the layout adds
    unlabelled: tuple[Sample, ...] = ()  # no label exists; never an image of val or test
    ignored_by: str = ""  # one line for reports: what is ignored besides mask ids

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of one split, in the order of its list.

        Raises:
            UserError: if there is no such split, or it is empty.
        """
        samples = self.splits.get(name, ())
        if samples:
            return samples
        filled = [key for key, value in self.splits.items() if value]
        near = difflib.get_close_matches(name, filled, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(
            f"{self.root}: no split {name!r}; there are {', '.join(filled) or 'none'}{hint}"
        )

    def sample(self, name: str) -> Sample:
        """The sample with this name, from any split or from the unlabelled images.

        Raises:
            UserError: if there is none; the nearest name is offered.
        """
        found = self._by_name.get(name)
        if found is not None:
            return found
        near = difflib.get_close_matches(name, self._by_name, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{self.root}: no image named {name!r}{hint}")

    @cached_property
    def _by_name(self) -> dict[str, Sample]:
        streams = [self.unlabelled, *reversed(list(self.splits.values()))]
        return {sample.name: sample for stream in streams for sample in stream}
