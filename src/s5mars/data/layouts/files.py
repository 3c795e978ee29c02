"""Listing images, matching masks to them, and reading split lists: what every layout needs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from s5mars.data.names import names_in
from s5mars.errors import MissingFileError, UserError
from s5mars.files import printable
from s5mars.files.reading import read_json, read_text
from s5mars.products.files import LISTED_ENDINGS, files_below, product_files
from s5mars.types import Sample


def list_images(folder: Path) -> dict[str, Path]:
    """Every image below a folder: name (path below it, without the ending) → file, sorted.

    Of a product and its picture to browse it is the product.

    Raises:
        UserError: if two files differ in their ending only, so that one name means both.
    """
    images: dict[str, Path] = {}
    for path in product_files(files_below(folder, LISTED_ENDINGS)):
        name = printable(path.relative_to(folder).with_suffix("").as_posix())
        if name in images:
            raise UserError(f"{path}: {images[name].name} has the same name: remove one of them")
        images[name] = path
    return images


def paired_samples(images: Path, masks: Path) -> dict[str, Sample]:
    """The images below a folder with the masks of the same name; ``mask`` is None without one.

    Raises:
        MissingFileError: if a folder is missing or there is no image.
        UserError: if a mask has no image.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise MissingFileError(f"{folder}: no such folder")
    image_of, mask_of = list_images(images), list_images(masks)
    if not image_of:
        raise MissingFileError(f"{images}: no image in it ({', '.join(sorted(LISTED_ENDINGS))})")
    orphans = mask_of.keys() - image_of.keys()
    if orphans:
        first = mask_of[min(orphans)]
        more = f" (and {len(orphans) - 1} more masks)" if len(orphans) > 1 else ""
        raise UserError(f"{first}: a mask without an image in {images}{more}: add or remove it")
    return {name: Sample(name, image, mask_of.get(name)) for name, image in image_of.items()}


def unlabelled_samples(folder: Path) -> tuple[Sample, ...]:
    """The images of a folder ``unlabelled/``, named ``unlabelled/...``; none if it is missing."""
    if not folder.is_dir():
        return ()
    return tuple(Sample(f"unlabelled/{name}", path) for name, path in list_images(folder).items())


def read_names(path: Path) -> list[str]:
    """The entries of a list: a JSON list, or a text file with one a line (``data/names.py``).

    Raises:
        MissingFileError: if there is no such file.
        UserError: if it is no text, no JSON list of names or numbers, or empty.
    """
    way_out = "give a list with one name a line"
    if path.suffix.lower() == ".json":
        entries = read_json(path, kind="JSON list", way_out=way_out)
        if not isinstance(entries, list) or not all(isinstance(e, str | int) for e in entries):
            raise UserError(f"{path}: not a JSON list of names")
        names = [str(entry) for entry in entries]
    else:
        names = names_in(read_text(path, kind="list", way_out=way_out))
    if not names:
        raise UserError(f"{path}: the list is empty: name at least one image")
    return names


def select(names: Iterable[str], samples: Mapping[str, Sample], source: Path) -> tuple[Sample, ...]:
    """The samples with these names, in this order; an ending or a folder before a name may stand.

    Raises:
        UserError: if names are unknown (counted, the first ones shown) or stand twice.
    """
    chosen: dict[str, Sample] = {}
    unknown: list[str] = []
    doubles: list[str] = []
    for entry in names:
        sample = _find(entry, samples)
        if sample is None:
            unknown.append(entry)
        elif sample.name in chosen:
            doubles.append(entry)
        else:
            chosen[sample.name] = sample
    if unknown:
        near = difflib.get_close_matches(unknown[0], list(samples)[:20000], n=1)
        hint = f"; the nearest to {unknown[0]!r} is {near[0]!r}" if near else ""
        raise UserError(
            f"{source}: names {len(unknown)} unknown file(s): {_shorten(unknown)}{hint}: "
            "correct the list or add the images"
        )
    if doubles:
        raise UserError(
            f"{source}: {len(doubles)} name(s) stand twice: {_shorten(doubles)}: remove one"
        )
    return tuple(chosen.values())


def _find(entry: str, samples: Mapping[str, Sample]) -> Sample | None:
    if entry in samples:
        return samples[entry]
    path = Path(entry)
    stem = path.with_suffix("") if path.suffix.lower() in LISTED_ENDINGS else path
    return samples.get(stem.as_posix()) or samples.get(stem.name)


def forbid_overlap(splits: Mapping[str, Sequence[Sample]], root: Path) -> None:
    """Refuse an image that stands in two splits: a score on it would be worth nothing.

    Raises:
        UserError: naming both splits and the first such images.
    """
    seen: dict[str, str] = {}
    for split, samples in splits.items():
        shared = [sample.name for sample in samples if sample.name in seen]
        if shared:
            raise UserError(
                f"{root}: {len(shared)} image(s) of split {split!r} stand in "
                f"{seen[shared[0]]!r} too: {_shorten(shared)}: remove them from one list"
            )
        seen |= dict.fromkeys((sample.name for sample in samples), split)


def without_masks(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """The same samples, with nothing left to open but the image."""
    return tuple(replace(sample, mask=None) for sample in samples)


def _shorten(names: Sequence[str], limit: int = 5) -> str:
    more = f", ... ({len(names) - limit} more)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
