"""AI4Mars: crowd labels of four cameras, and for one of them three gold sets for testing.

Swan et al., CVPR Workshops 2021; release 0.6 has more folders than its first ones:

- Curiosity Navcam: ``images/edr`` holds the frames, ``images/mxy`` masks of the rover,
  ``images/rng-30m`` masks of what lies beyond 30 m; ``labels/train`` and
  ``labels/test/masked-gold-min{1,2,3}-100agree`` the labels (0 soil, 1 bedrock, 2 sand, 3 big rock,
  255 unlabelled). The whole data set, its ``msl`` or ``msl/ncam`` may be given.
- Curiosity Mastcam, ``msl/mcam``: ``images`` and ``labels/train``. Some of its labels have 4 where
  others have 255.
- Perseverance, ``m2020``: ``images/*`` of several cameras, ``labels/NAV`` with the same four
  classes, and ``labels/M2020_GEO`` with 21 classes of geology, which is read if that folder is
  given.

Mastcam has no masks of the rover and of what is far.
"""

from __future__ import annotations

import itertools
import logging
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from s5mars.classes import (
    AI4MARS,
    AI4MARS_CODING,
    AI4MARS_GEOLOGY,
    AI4MARS_GEOLOGY_CODING,
    IGNORE,
    MaskCoding,
    Taxonomy,
)
from s5mars.data.dataset import Dataset
from s5mars.data.layouts.files import (
    forbid_overlap,
    left_out,
    list_images,
    read_names,
    select,
)
from s5mars.errors import MissingFileError, UserError
from s5mars.text.numbers import plural
from s5mars.types import Sample

SIGNATURE = (
    "images/edr/ and labels/train/ (also below msl/ or msl/ncam/), or msl/mcam/, m2020/ or "
    "m2020/labels/M2020_GEO/ of AI4Mars 0.6"
)

GOLD = {f"test_min{n}": f"labels/test/masked-gold-min{n}-100agree" for n in (1, 2, 3)}

VALIDATION_SHARE = 20  # one of this many places is held out
TEST_SHARE = 4  # and this many of them, where there is no gold set

NAVIGATION, GEOLOGY = "NAV", "M2020_GEO"

_MASTCAM_CODING = MaskCoding(AI4MARS_CODING.index_of, frozenset({4, IGNORE}))

logger = logging.getLogger("s5mars")


@dataclass(frozen=True)
class _Part:
    """A camera or rover whose labels are in one folder, without a gold set."""

    images: Path
    labels: Path
    taxonomy: Taxonomy
    coding: MaskCoding


def _part(root: Path) -> _Part | None:
    """The part that a folder is, apart from Curiosity's Navcam."""
    if (_folder(root) / "images" / "edr").is_dir():
        return None
    for folder in (root, root / "mcam", root / "msl" / "mcam"):
        labels = folder / "labels" / "train"
        if folder.resolve().name == "mcam" and (folder / "images").is_dir() and labels.is_dir():
            return _Part(folder / "images", labels, AI4MARS, _MASTCAM_CODING)
    given = root.resolve()
    folders, kinds = [root, root / "m2020"], [NAVIGATION, GEOLOGY]
    if given.name in kinds:
        folders, kinds = [given.parent.parent], [given.name]
    for folder, kind in itertools.product(folders, kinds):
        images, labels = folder / "images", folder / "labels" / kind
        if images.is_dir() and labels.is_dir():
            if kind == GEOLOGY:
                return _Part(images, labels, AI4MARS_GEOLOGY, AI4MARS_GEOLOGY_CODING)
            return _Part(images, labels, AI4MARS, AI4MARS_CODING)
    return None


def _folder(root: Path) -> Path:
    below = (root, root / "msl", root / "msl" / "ncam", root / "ncam")
    return next((folder for folder in below if (folder / "images" / "edr").is_dir()), root)


def missing(root: Path) -> list[str]:
    """List what the folder lacks to be AI4Mars; rover, range and test folders are optional."""
    if _part(root) is not None:
        return []
    folder = _folder(root)
    wanted = ("images/edr", "labels/train")
    return [f"{name}/" for name in wanted if not (folder / name).is_dir()]


def read(root: Path, *, lists: Path | None = None) -> Dataset:
    """Read AI4Mars: "train", "val" and "test"; Navcam also has "test_min1" to "test_min3".

    Navcam's "test" is the gold set on which three annotators agree. The other parts have no gold
    set, and nothing has a validation split. One place in 20 of the train labels is held out for
    "val", and without a gold set four in 20 for "test". The choice depends only on the file name
    (site and drive of Navcam, sol of the others), so no label is read and neighbouring frames stay
    together. ``splits/train.txt`` and further lists in the folder, or those in ``lists``, override
    it. Rover pixels and pixels beyond 30 m are hidden where there are masks of them. Frames without
    a label are unlabelled images; of Perseverance's, those of cameras that have labels.
    """
    part = _part(root)
    if part is not None:
        return _read_part(root, part, lists)
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
    splits = _train_and_validation(root, labelled, lists)
    unlisted = left_out(labelled, splits)[1]
    if "test_min3" in tests and "test" not in splits:
        splits["test"] = tests["test_min3"]
    splits |= tests
    free = frames.keys() - labelled.keys() - tested
    unlabelled = tuple(sample(name, None) for name in sorted(free))
    hidden = [
        text for text, there in (("rover pixels", rover), ("pixels beyond 30 m", far)) if there
    ]
    return Dataset(
        root, "ai4mars", AI4MARS, AI4MARS_CODING, splits, unlabelled, " and ".join(hidden),
        unlisted=unlisted,
    )  # fmt: skip


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


def _read_part(root: Path, part: _Part, lists: Path | None) -> Dataset:
    frames = list_images(part.images)
    if not frames:
        raise MissingFileError(f"{part.images} contains no image")
    by_stem: dict[str, str] = {}
    for name in frames:  # the first camera's, should two have a frame of one name
        by_stem.setdefault(Path(name).name, name)
    masks: dict[str, Path] = {}
    orphans = []
    for label, path in list_images(part.labels).items():
        frame = _frame_of(Path(label).name, by_stem)
        if frame is None:
            orphans.append(path)
        elif frame in masks:
            raise UserError(
                f"{path} and {masks[frame]} are labels of one frame: remove one of them"
            )
        else:
            masks[frame] = path
    if orphans:
        logger.warning(
            "%s: %s left out; the first: %s",
            part.labels,
            plural(len(orphans), "label without a frame is", "labels without a frame are"),
            orphans[0].name,
        )
    labelled = {name: Sample(name, frames[name], masks[name]) for name in sorted(masks)}
    cameras = {Path(name).parent for name in labelled}
    unlabelled = tuple(
        Sample(name, path)
        for name, path in frames.items()
        if name not in labelled and Path(name).parent in cameras
    )
    splits = _train_and_validation(root, labelled, lists, test_share=TEST_SHARE)
    unlisted = left_out(labelled, splits)[1]
    return Dataset(
        root, "ai4mars", part.taxonomy, part.coding, splits, unlabelled, unlisted=unlisted
    )


def _frame_of(label: str, by_stem: Mapping[str, str]) -> str | None:
    """The frame of a label, whose name may end in ``_merged13`` or ``_15033_merged``."""
    for ending in ("", r"_merged\d*$", r"_\d+_merged\d*$"):
        frame = by_stem.get(re.sub(ending, "", label) if ending else label)
        if frame is not None:
            return frame
    return None


def _train_and_validation(
    root: Path, labelled: Mapping[str, Sample], lists: Path | None, *, test_share: int = 0
) -> dict[str, tuple[Sample, ...]]:
    folder = root / "splits" if lists is None else lists
    paths = {split: folder / f"{split}.txt" for split in ("train", "val", "test")}
    if lists is not None and not paths["train"].is_file():
        raise MissingFileError(f"{paths['train']} is missing: --splits must name a folder with it")
    if paths["train"].is_file():
        splits = {
            split: select(read_names(path), labelled, path)
            for split, path in paths.items()
            if path.is_file()
        }
        forbid_overlap(splits, root)
        return splits
    of_place = ["val", *["test"] * test_share, *["train"] * (VALIDATION_SHARE - 1 - test_share)]
    names = ("train", "val", "test") if test_share else ("train", "val")
    chosen: dict[str, list[Sample]] = {split: [] for split in names}
    for name, sample in labelled.items():
        chosen[of_place[zlib.crc32(_place(name)) % VALIDATION_SHARE]].append(sample)
    return {split: tuple(samples) for split, samples in chosen.items()}


def _place(name: str) -> bytes:
    """Site and drive of a Navcam frame (the digits after ``EDR_F``), or the sol of another one."""
    stem = Path(name).name
    found = re.search(r"EDR_.(\d{7})", stem) or re.match(
        r"(\d{4})M[A-Z]|\w{3}_(\d{4})_\d{10}", stem
    )
    if found is None:
        return name.encode()
    return next(digits for digits in found.groups() if digits).encode()
