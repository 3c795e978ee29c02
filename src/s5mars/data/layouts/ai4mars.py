"""AI4Mars, the Curiosity Navcam part: crowd labels for training, three gold sets for testing.

``images/edr`` holds the frames, ``images/mxy`` masks of the rover, ``images/rng-30m`` masks of
what lies beyond 30 m; ``labels/train`` and ``labels/test/masked-gold-min{1,2,3}-100agree`` the
labels (0 soil, 1 bedrock, 2 sand, 3 big rock, 255 unlabelled). The folder itself, its ``msl`` or
``msl/ncam`` may be given. Swan et al., CVPR Workshops 2021.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from pathlib import Path

from s5mars.classes import AI4MARS, AI4MARS_CODING
from s5mars.data.dataset import Dataset
from s5mars.data.layouts.files import forbid_overlap, list_images, read_names, select
from s5mars.errors import MissingFileError, UserError
from s5mars.types import Sample

LOOKS_LIKE = "images/edr/ and labels/train/ (also below msl/ or msl/ncam/)"

GOLD = {f"test_min{n}": f"labels/test/masked-gold-min{n}-100agree" for n in (1, 2, 3)}

VALIDATION_SHARE = 20  # one of this many places is held out


def _folder(root: Path) -> Path:
    below = (root, root / "msl", root / "msl" / "ncam", root / "ncam")
    return next((folder for folder in below if (folder / "images" / "edr").is_dir()), root)


def missing(root: Path) -> list[str]:
    """List what the folder lacks to be AI4Mars; rover, range and test folders are optional."""
    folder = _folder(root)
    wanted = ("images/edr", "labels/train")
    return [f"{name}/" for name in wanted if not (folder / name).is_dir()]


def read(root: Path) -> Dataset:
    """Read AI4Mars: "train", "val", "test" (three annotators agree) and "test_min1" to "test_min3".

    AI4Mars has no validation split. Here one place in 20 of the train labels is held out. The
    choice depends only on the site and drive number in the file name, so no label is read and
    neighbouring frames stay together. ``splits/train.txt`` and ``splits/val.txt`` in the folder
    override it. Rover pixels and pixels beyond 30 m are hidden. Frames without a label are
    unlabelled images.
    """
    folder = _folder(root)
    frames = list_images(folder / "images" / "edr")
    if not frames:
        raise MissingFileError(f"{folder / 'images' / 'edr'} contains no image")
    rover = list_images(folder / "images" / "mxy")
    far = list_images(folder / "images" / "rng-30m")

    def sample(name: str, mask: Path | None) -> Sample:
        hide = (rover.get(name.replace("EDR", "MXY")), far.get(name.replace("EDR", "RNG")))
        return Sample(name, frames[name], mask, tuple(path for path in hide if path))

    tests: dict[str, tuple[Sample, ...]] = {}
    for split, place in GOLD.items():
        masks = _masks(folder / place, frames)
        if masks:
            tests[split] = tuple(sample(name, mask) for name, mask in masks.items())
    tested = {each.name for samples in tests.values() for each in samples}
    masks = _masks(folder / "labels" / "train", frames)
    labelled = {name: sample(name, mask) for name, mask in masks.items() if name not in tested}
    splits = _train_and_validation(root, labelled)
    if "test_min3" in tests:
        splits["test"] = tests["test_min3"]
    splits |= tests
    free = frames.keys() - labelled.keys() - tested
    unlabelled = tuple(sample(name, None) for name in sorted(free))
    hidden = [
        text for text, there in (("rover pixels", rover), ("pixels beyond 30 m", far)) if there
    ]
    return Dataset(
        root, "ai4mars", AI4MARS, AI4MARS_CODING, splits, unlabelled, " and ".join(hidden)
    )


def _masks(folder: Path, frames: Mapping[str, Path]) -> dict[str, Path]:
    """Frame name → label file; names of labels may end in ``_merged``."""
    masks: dict[str, Path] = {}
    for name, path in list_images(folder).items():
        frame = name.removesuffix("_merged")
        if frame not in frames:
            raise UserError(
                f"{path} has no frame {frame} in images/edr/: add the frame or remove the label"
            )
        masks[frame] = path
    return masks


def _train_and_validation(
    root: Path, labelled: Mapping[str, Sample]
) -> dict[str, tuple[Sample, ...]]:
    lists = {split: root / "splits" / f"{split}.txt" for split in ("train", "val")}
    if lists["train"].is_file():
        splits = {
            split: select(read_names(path), labelled, path)
            for split, path in lists.items()
            if path.is_file()
        }
        forbid_overlap(splits, root)
        return splits
    held_out = {name for name in labelled if zlib.crc32(_place(name)) % VALIDATION_SHARE == 0}
    return {
        "train": tuple(each for name, each in labelled.items() if name not in held_out),
        "val": tuple(each for name, each in labelled.items() if name in held_out),
    }


def _place(name: str) -> bytes:
    """Site and drive of a Navcam product name: the seven digits after ``EDR_F``."""
    found = re.search(r"EDR_.(\d{7})", name)
    return (found[1] if found else name).encode()
