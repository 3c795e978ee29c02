"""Which painted images are held back: every tenth, for the score and for choosing checkpoints.

Held-back images are the split ``val``, the others ``train``; the lists are those that every command
reads. An image of another list, such as ``test``, stays there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path

from s5mars.data.layouts.files import read_names, select, unknown_names
from s5mars.data.layouts.splitting import GROWS
from s5mars.data.names import as_lines
from s5mars.files import visible, write_text
from s5mars.files.reading import read_text
from s5mars.text.numbers import plural
from s5mars.types import Sample

logger = logging.getLogger("s5mars")

SHARE = 0.1
FIRST = 3
"""The number of painted images from which on one of them is held back."""

LATEST = 5
"""The same where it would part images of one sol."""

MOST_OVER = 4
"""Images beyond their share that are held back so that a sol stays together."""


class Splits:
    """The lists in ``splits/``.

    Args:
        sols: sol of each image, where it is known: images of one sol are kept in one list while the
            shares allow it.

    Images whose files are gone are removed from the lists that s5mars wrote, with a warning.

    Raises:
        UserError: if a list of the user names unknown images.
    """

    def __init__(
        self, folder: Path, samples: Mapping[str, Sample], sols: Mapping[str, int | None]
    ) -> None:
        self.folder = folder
        self.sols = sols
        self.lists: dict[str, list[str]] = {"train": [], "val": []}
        paths = visible(folder, "*.txt")
        self._heads = {path.stem: _head(path) for path in paths}
        # Without the mark in train.txt, all lists are the user's.
        own = self._heads.get("train", GROWS).startswith(GROWS)
        shortened = []
        for path in paths:
            names = read_names(path)
            if (
                own
                and self._heads[path.stem].startswith(GROWS)
                and (gone := set(unknown_names(names, samples)))
            ):
                names = [name for name in names if name not in gone]
                shortened.append(path.stem)
                logger.warning(
                    "%s: removed %s without a file, the first: %s",
                    path, plural(len(gone), "image"), min(gone),
                )  # fmt: skip
            chosen = select(names, samples, path)
            self.lists[path.stem] = [sample.name for sample in chosen]
        # Other commands add new masks to lists that s5mars began, and to no others.
        self._head_of_new = self._heads.get("train", GROWS)
        self._of = {name: split for split, names in self.lists.items() for name in names}
        if shortened:
            self._write(shortened)

    def of(self, name: str) -> str | None:
        """The list that an image stands in."""
        return self._of.get(name)

    @property
    def missing_for_val(self) -> str:
        """The images to paint before ``val`` has its first one, in words."""
        train = len(self.lists["train"])
        fewest, most = max(1, FIRST - train), max(1, LATEST - train)
        sols_known = any(
            sol is not None for name, sol in self.sols.items() if self.of(name) is None
        )
        count = most if sols_known else fewest
        images = f"{count} more image{'s' if count > 1 else ''}"
        if count == fewest:
            return images
        return f"{images}, or on {fewest} of {'different sols' if fewest > 1 else 'another sol'}"

    def add(self, names: Iterable[str]) -> None:
        """Put newly painted images into ``train`` or ``val``, and write the lists."""
        new = [name for name in names if self.of(name) is None]
        for name in new:
            self._of[name] = self._choose(name)
            self.lists[self._of[name]].append(name)
        if new:
            self._write()

    def remove(self, name: str) -> None:
        """Take an image out whose paint is gone."""
        split = self.of(name)
        if split in ("train", "val"):
            self.lists[split].remove(name)
            del self._of[name]
            self._write()

    def _choose(self, name: str) -> str:
        train, val = self.lists["train"], self.lists["val"]
        painted = len(train) + len(val) + 1
        sol = self.sols.get(name)
        in_train, in_val = (
            sol is not None and any(self.sols.get(other) == sol for other in names)
            for names in (train, val)
        )
        if not val:
            return "val" if painted >= (LATEST if in_train else FIRST) else "train"
        missing = painted * SHARE - len(val)
        if in_val and not in_train:
            return "val" if missing > -MOST_OVER else "train"
        if in_train and not in_val:
            return "train"
        new_sol = sol is not None and not in_train
        return "val" if missing >= (0 if new_sol else 0.5) else "train"

    def _write(self, splits: Iterable[str] = ("train", "val")) -> None:
        # The shrinking list first: an image must never stand in two.
        for split in splits:
            path = self.folder / f"{split}.txt"
            if self.lists[split]:
                head = self._heads.get(split, self._head_of_new)
                write_text(path, head + as_lines(self.lists[split]))
            else:
                path.unlink(missing_ok=True)


def _head(path: Path) -> str:
    """The comments before the first name, such as the mark of lists that s5mars wrote."""
    lines = read_text(path, kind="list").splitlines(keepends=True)
    return "".join(takewhile(lambda line: line.startswith("#"), lines))
