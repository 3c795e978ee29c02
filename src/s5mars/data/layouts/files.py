"""Helpers of all layouts: list images, match masks to images, read split lists."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from s5mars.data.names import names_in
from s5mars.errors import MissingFileError, UserError, did_you_mean, listed, warn_once
from s5mars.files import printable
from s5mars.files.reading import read_json, read_text
from s5mars.products.files import LISTED_ENDINGS, files_below, product_files
from s5mars.text.numbers import plural
from s5mars.types import Sample

MASK_SUFFIX = re.compile(
    r"[ _.-](masks?|labels?|labelled|seg|segmentation|gt|annotations?|classes|colou?rs?|ids?)$",
    re.IGNORECASE,
)
"""What many tools append to the name of an image to name its mask."""


def list_images(folder: Path, *, broken: list[Path] | None = None) -> dict[str, Path]:
    """List the images below a folder: name (relative path without the ending) → file, sorted.

    If a product has a browse picture, only the product is listed. ``broken`` gets the broken links
    among the files.

    Raises:
        UserError: if two files differ only in their ending.
    """
    images: dict[str, Path] = {}
    for path in product_files(files_below(folder, LISTED_ENDINGS, broken=broken)):
        name = printable(path.relative_to(folder).with_suffix("").as_posix())
        if name in images:
            raise UserError(f"{path} has the same name as {images[name].name}: remove one of them")
        images[name] = path
    return images


def paired_samples(images: Path, masks: Path) -> dict[str, Sample]:
    """Pair the images below a folder with the masks of the same name; ``mask`` may be None.

    Raises:
        MissingFileError: if a folder does not exist or there is no image.
        UserError: if a mask has no image.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise MissingFileError(f"{folder}: no such folder")
    broken: list[Path] = []
    image_of = list_images(images, broken=broken)
    mask_of = as_spelled_in(image_of, list_images(masks))
    image_of = _without_broken(images, image_of, broken, masks=mask_of)
    if not image_of:
        raise MissingFileError(f"{images} contains no image ({', '.join(sorted(LISTED_ENDINGS))})")
    orphans = mask_of.keys() - image_of.keys()
    if orphans:
        first = mask_of[min(orphans)]
        more = f" (and {len(orphans) - 1} more masks)" if len(orphans) > 1 else ""
        remedy = _without_suffix(min(orphans), image_of, images, masks)
        raise UserError(
            f"{first}{more} has no image in {images}: "
            f"{remedy or 'add the image or remove the mask'}"
        )
    return {name: Sample(name, image, mask_of.get(name)) for name, image in image_of.items()}


def as_spelled_in(images: Collection[str], masks: Mapping[str, Path]) -> dict[str, Path]:
    """The masks by the names of their images, which may spell accents in another way."""
    spelled = {composed(name): name for name in images if name not in masks}
    return {
        name if name in images else spelled.get(composed(name), name): path
        for name, path in masks.items()
    }


def composed(name: str) -> str:
    """A name with one character for a letter and its accent, which macOS stores as two."""
    return unicodedata.normalize("NFC", name)


def _without_broken(
    folder: Path,
    image_of: Mapping[str, Path],
    broken: Collection[Path],
    *,
    masks: Collection[str] = (),
) -> dict[str, Path]:
    """The images without broken links, which a run would find in its pool after hours.

    A broken link that has a mask stays: its reader reports it.
    """
    if not broken:
        return dict(image_of)
    links = set(broken)
    lost = {name: path for name, path in image_of.items() if path in links and name not in masks}
    if lost:
        warn_once(
            f"{folder}: {plural(len(lost), 'broken link is', 'broken links are')} left out; the "
            f"first: {next(iter(lost.values()))}"
        )
    return {name: path for name, path in image_of.items() if name not in lost}


def _without_suffix(
    mask: str, image_of: Mapping[str, Path], images: Path, masks: Path
) -> str | None:
    """What to do about a mask such as ``X_mask.png`` of the image ``X.png``; else None."""
    suffix = MASK_SUFFIX.search(mask)
    if suffix is None or mask[: suffix.start()] not in image_of:
        return None
    return (
        f"masks need the name of their image, without {suffix[0]!r}; rename them, or let "
        f"`s5mars import {masks} --images {images} --out FOLDER` do it in a new folder"
    )


def unlabelled_samples(folder: Path) -> tuple[Sample, ...]:
    """The images of a folder ``unlabelled/``, if it exists, with names ``unlabelled/...``."""
    if not folder.is_dir():
        return ()
    broken: list[Path] = []
    images = _without_broken(folder, list_images(folder, broken=broken), broken)
    return tuple(Sample(f"unlabelled/{name}", path) for name, path in images.items())


def read_names(path: Path) -> list[str]:
    """Read a JSON list, or a text file with one name per line (see ``data/names.py``).

    Raises:
        MissingFileError: if the file does not exist.
        UserError: if it is not text, not a JSON list of names or numbers, or empty.
    """
    remedy = "give a list with one name per line"
    if path.suffix.lower() == ".json":
        entries = read_json(path, kind="JSON list", remedy=remedy)
        if not isinstance(entries, list) or not all(isinstance(e, str | int) for e in entries):
            raise UserError(f'{path} is not a JSON list of names: write ["a", "b"]')
        names = [str(entry) for entry in entries]
    else:
        names = names_in(read_text(path, kind="list", remedy=remedy))
    if not names:
        raise UserError(f"{path} is empty: list at least one image")
    return names


def select(names: Iterable[str], samples: Mapping[str, Sample], source: Path) -> tuple[Sample, ...]:
    """Return the samples with these names, in this order; names may have an ending or a folder.

    Raises:
        UserError: if names are unknown or listed twice.
    """
    chosen: dict[str, Sample] = {}
    unknown: list[str] = []
    duplicates: list[str] = []
    known = _Known(samples)
    for entry in names:
        sample = known.find(entry)
        if sample is None:
            unknown.append(entry)
        elif sample.name in chosen:
            duplicates.append(entry)
        else:
            chosen[sample.name] = sample
    if unknown:
        raise UserError(
            f"{source} lists {plural(len(unknown), 'unknown file')}: {listed(unknown)}: correct "
            f"the list or add the images{did_you_mean(unknown[0], list(samples)[:20000])}"
        )
    if duplicates:
        raise UserError(
            f"{source} has {plural(len(duplicates), 'duplicate name')}: {listed(duplicates)}: "
            "keep each name once"
        )
    return tuple(chosen.values())


def unknown_names(names: Iterable[str], samples: Mapping[str, Sample]) -> list[str]:
    """The names that ``select`` does not find."""
    known = _Known(samples)
    return [entry for entry in names if known.find(entry) is None]


class _Known:
    """Samples by their names, for entries of lists."""

    def __init__(self, samples: Mapping[str, Sample]) -> None:
        self._samples = {composed(name): sample for name, sample in samples.items()} | {**samples}
        self._ambiguous = frozenset(ending for name in self._samples for ending in _endings(name))

    def find(self, entry: str) -> Sample | None:
        """The sample of an entry; its folders may be those of the data set or of another machine.

        Accents may be spelled in another way than in the names of the files, and folders be
        separated as on Windows.
        """
        spelled = composed(entry)
        forms = dict.fromkeys((entry, spelled, spelled.replace("\\", "/")))
        return next(filter(None, map(self._find, forms)), None)

    def _find(self, entry: str) -> Sample | None:
        if entry in self._samples:
            return self._samples[entry]
        path = Path(entry)
        stem = path.with_suffix("") if path.suffix.lower() in LISTED_ENDINGS else path
        for first in range(len(stem.parts)):
            name = "/".join(stem.parts[first:])
            if sample := self._samples.get(name):
                folders = {
                    file.parents[name.count("/")].name
                    for file in (sample.image, sample.mask)
                    if file is not None
                }
                if not first or name not in self._ambiguous or stem.parts[first - 1] in folders:
                    return sample
        return None


def _endings(name: str) -> Iterator[str]:
    """``b/c`` and ``c`` of the name ``a/b/c``."""
    parts = name.split("/")
    return ("/".join(parts[first:]) for first in range(1, len(parts)))


def left_out(
    samples: Mapping[str, Sample], splits: Mapping[str, Sequence[Sample]]
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """The samples that are in no split: those without a mask, and those with one."""
    listed = {sample.name for split in splits.values() for sample in split}
    rest = [sample for sample in samples.values() if sample.name not in listed]
    return tuple(s for s in rest if s.mask is None), tuple(s for s in rest if s.mask is not None)


def forbid_overlap(splits: Mapping[str, Sequence[Sample]], root: Path) -> None:
    """Check that no image is in two splits, which would make scores meaningless.

    Raises:
        UserError: if one is; the message names the splits and the images.
    """
    seen: dict[str, str] = {}
    for split, samples in splits.items():
        shared = [sample.name for sample in samples if sample.name in seen]
        if shared:
            of = f"of split {split!r}"
            raise UserError(
                f"{root}: {plural(len(shared), f'image {of} is', f'images {of} are')} also in "
                f"{seen[shared[0]]!r}: {listed(shared)}: keep each image in one list"
            )
        seen |= dict.fromkeys((sample.name for sample in samples), split)
