"""The S5Mars release: ``images/*.jpg``, ``labels/*.png``, JSON lists of names for the splits.

Label ids: 0 is unlabelled, 1..9 are the nine classes. 6 000 images of 1200×1200; the paper has
5 000 / 200 / 800 of them in train / val / test. A ``dataset.yaml`` in the folder replaces classes
and ids.
"""

from __future__ import annotations

import json
from pathlib import Path

from s5mars.classes import S5MARS, S5MARS_CODING
from s5mars.data.dataset import Dataset
from s5mars.data.layouts.files import forbid_overlap, left_out, paired_samples, read_names, select
from s5mars.data.layouts.plain import description_or
from s5mars.data.layouts.splitting import read_splits
from s5mars.errors import UserError
from s5mars.files import visible

SIGNATURE = "images/ and labels/ with JSON lists of names (train and test in their file names)"


def missing(root: Path) -> list[str]:
    """List what the folder lacks to be the release; the split lists are optional."""
    return [f"{name}/" for name in ("images", "labels") if not (root / name).is_dir()]


def read(root: Path, *, lists: Path | None = None) -> Dataset:
    """Read the release.

    The train split keeps the order of its list, for the index lists of the authors. The release
    lists only train and test; without a list for "val", it contains the labelled images that are
    in no list. Without any list, ``splits/*.txt`` are read or created. ``lists`` replaces
    ``splits/`` and the JSON lists.
    """
    taxonomy, coding = description_or(root, S5MARS, S5MARS_CODING)
    samples = paired_samples(root / "images", root / "labels")
    released = {split: _list_of(root, split) for split in ("train", "val", "test")}
    written = bool(visible(root / "splits", "*.txt"))
    if lists is not None or written or not any(released.values()):
        splits = read_splits(root, samples, taxonomy, coding, lists=lists)
    else:
        splits = {
            split: select(read_names(path), samples, path)
            for split, path in released.items()
            if path
        }
        if splits.keys() == {"train", "test"}:
            rest = left_out(samples, splits)[1]
            splits = {"train": splits["train"], "val": rest, "test": splits["test"]}
        forbid_overlap(splits, root)
    unlabelled, unlisted = left_out(samples, splits)
    return Dataset(root, "s5mars", taxonomy, coding, splits, unlabelled, unlisted=unlisted)


def _list_of(root: Path, split: str) -> Path | None:
    """Find the JSON list of a split, in the folder or in a direct subfolder.

    Raises:
        UserError: if there are several with different contents.
    """
    below = [*visible(root, "*.json"), *visible(root, "*/*.json")]
    images = {root / "images", root / "labels"}
    named = sorted(p for p in below if split in p.stem.lower() and p.parent not in images)
    exact = [path for path in named if path.stem == split]
    candidates = exact or named
    if len({json.dumps(read_names(path)) for path in candidates}) > 1:
        listed = ", ".join(path.relative_to(root).as_posix() for path in candidates)
        raise UserError(
            f"{root} has several lists for {split!r}: {listed}: keep one, or name it {split}.json"
        )
    return candidates[0] if candidates else None
