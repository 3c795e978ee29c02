"""The Mars-Bench copy of S5Mars: ``data/{train,val,test}/{images,masks}``.

The ids are those of the S5Mars release: 0 is unlabelled and ignored here, while the baseline of
Mars-Bench trains it as a tenth class. A ``partitions/*x_partition.csv`` can be given as the list
of labelled images. A ``dataset.yaml`` in the folder replaces classes and ids.
"""

from __future__ import annotations

from pathlib import Path

from s5mars.classes import S5MARS, S5MARS_CODING
from s5mars.data.dataset import Dataset
from s5mars.data.layouts.files import forbid_overlap, left_out, paired_samples
from s5mars.data.layouts.plain import description_or
from s5mars.data.layouts.splitting import read_splits
from s5mars.types import Sample

SPLITS = ("train", "val", "test")

SIGNATURE = "data/{train,val,test}/{images,masks}"


def _folder(root: Path) -> Path:
    return root / "data" if (root / "data").is_dir() else root


def missing(root: Path) -> list[str]:
    """List what the folder lacks to be the Mars-Bench copy; ``data/`` itself may be given."""
    folder = _folder(root)
    present = [split for split in SPLITS if (folder / split / "images").is_dir()]
    needed = present or ["train"]
    wanted = [folder / split / kind for split in needed for kind in ("images", "masks")]
    return [f"{path.relative_to(root)}/" for path in wanted if not path.is_dir()]


def read(root: Path, *, lists: Path | None = None) -> Dataset:
    """Read the copy; train images without a mask become unlabelled images.

    ``lists``, if given, says instead of the folders which image is in which split.
    """
    taxonomy, coding = description_or(root, S5MARS, S5MARS_CODING)
    splits: dict[str, tuple[Sample, ...]] = {}
    for split in SPLITS:
        folder = _folder(root) / split
        if (folder / "images").is_dir():
            splits[split] = tuple(paired_samples(folder / "images", folder / "masks").values())
    forbid_overlap(splits, root)
    samples = {sample.name: sample for split in splits.values() for sample in split}
    if lists is not None:
        splits = read_splits(root, samples, taxonomy, coding, lists=lists)
    elif "train" in splits:
        splits["train"] = tuple(sample for sample in splits["train"] if sample.mask is not None)
    unlabelled, unlisted = left_out(samples, splits)
    return Dataset(root, "mars-bench", taxonomy, coding, splits, unlabelled, unlisted=unlisted)
