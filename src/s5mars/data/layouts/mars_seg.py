"""Mars-Seg: dense labels of nine classes on images of Spirit and Opportunity, and of Curiosity.

Li et al., "A Stepwise Domain Adaptive Segmentation Network With Covariate Shift Alleviation for
Remote Sensing Imagery", TGRS 2022. ``MER`` has 1 064 grey images of 1024×1024 pixels, ``MSL`` about
4 000 in colour of 560×500; they are two data sets, and one of the two folders is given. Two forms:

- the release: ``JPEGImages`` and ``SegmentationClassPNG``, with ids 1..9;
- the copy of Co2S (Zhou et al. 2025): ``images`` and ``labels``, with ids 0..8.

The ids are inferred from the number of classes and the colours of the copy, without the files; an
id that is not expected is an error, and a ``dataset.yaml`` in the folder replaces classes and ids.

Neither has splits. Those of Co2S are lists in its repository (XavierJiezou/Co2S, ``splits/mer`` and
``splits/msl``), which belong into ``splits`` of the folder. They name the partitions ``co2s-1_8``
and ``co2s-1_4``, for ``--labelled``:

==========  =====  ========  ========  ====
data        train  co2s-1_8  co2s-1_4  test
==========  =====  ========  ========  ====
MER           851       106       212   213
MSL         3 141       392       785   786
==========  =====  ========  ========  ====

Co2S has no validation split: it chooses its checkpoint on the images that it reports
(``--select-on test``). Without its lists, ``splits/*.txt`` are read, or stratified ones made.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from s5mars.classes import IGNORE, MARS_SEG, MaskCoding
from s5mars.data.dataset import Dataset
from s5mars.data.layouts.files import forbid_overlap, left_out, paired_samples, read_names, select
from s5mars.data.layouts.plain import description_or
from s5mars.data.layouts.splitting import read_splits
from s5mars.errors import UserError
from s5mars.types import Sample

SIGNATURE = (
    "JPEGImages/ and SegmentationClassPNG/ (Mars-Seg), or images/ and labels/ in a folder mer/ or "
    "msl/ or with splits/1_8/labeled.txt (its copy by Co2S)"
)

RELEASE = ("JPEGImages", "SegmentationClassPNG")
COPY = ("images", "labels")
PARTS = ("MER", "MSL")

CODINGS = {
    RELEASE: MaskCoding({i + 1: i for i in range(len(MARS_SEG))}, frozenset({IGNORE})),
    COPY: MaskCoding.identity(len(MARS_SEG)),
}


def missing(root: Path) -> list[str]:
    """List what the folder lacks to be Mars-Seg."""
    if _form(root) is not None or any(_form(root / part) for part in PARTS):
        return []
    return [f"{name}/" for name in RELEASE]


def read(root: Path, *, lists: Path | None = None) -> Dataset:
    """Read one of the two parts; ``lists`` replaces the lists of Co2S.

    Raises:
        UserError: if both parts are below the folder, or as ``open_dataset``.
    """
    form, folder = _form(root), root
    if form is None:
        below = [part for part in PARTS if _form(root / part)]
        if len(below) > 1:
            raise UserError(
                f"{root} holds two data sets: give {root / below[0]} or {root / below[1]}"
            )
        folder = root / below[0]
        form = _form(folder)
    assert form is not None  # as ``missing`` has found
    taxonomy, coding = description_or(folder, MARS_SEG, CODINGS[form])
    samples = paired_samples(folder / form[0], folder / form[1])
    partitions = _co2s(folder)
    splits = (
        _co2s_splits(folder, samples)
        if partitions and lists is None
        else read_splits(folder, samples, taxonomy, coding, lists=lists)
    )
    unlabelled, unlisted = left_out(samples, splits)
    return Dataset(
        root, "mars-seg", taxonomy, coding, splits, unlabelled,
        partitions=partitions, unlisted=unlisted,
    )  # fmt: skip


def _form(folder: Path) -> tuple[str, str] | None:
    if all((folder / name).is_dir() for name in RELEASE):
        return RELEASE
    # Other data sets have these two folders, too; in AI4Mars they hold folders.
    here = folder.resolve().name.upper() in PARTS or bool(_co2s(folder))
    if here and all((folder / name).is_dir() for name in COPY):
        return COPY if any((folder / COPY[1]).glob("*.png")) else None
    return None


def _co2s(folder: Path) -> dict[str, Path]:
    """The lists of labelled images: ``{"co2s-1_8": splits/1_8/labeled.txt, ...}``."""
    lists = sorted((folder / "splits").glob("[0-9]*_[0-9]*/labeled.txt"))
    return {f"co2s-{path.parent.name}": path for path in lists}


def _co2s_splits(folder: Path, samples: Mapping[str, Sample]) -> dict[str, tuple[Sample, ...]]:
    """Train and test; a line of the lists names an image and its label."""
    lists = folder / "splits"
    whole = lists / "all" / "labeled.txt"
    first = next(iter(_co2s(folder).values()))
    train = [whole] if whole.is_file() else [first, first.with_name("unlabeled.txt")]
    splits = {
        "train": tuple(s for path in train for s in select(read_names(path), samples, path)),
        "test": select(read_names(lists / "val.txt"), samples, lists / "val.txt"),
    }
    forbid_overlap(splits, folder)
    return splits
