"""Find the products to predict and give their maps unique names."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from s5mars.errors import MissingFileError, UserError, warn_of_all
from s5mars.files import given_path, printable
from s5mars.files.locking import LOCK
from s5mars.files.reading import require_regular
from s5mars.products import PRODUCT_ENDINGS, product_files
from s5mars.products.files import files_below, without_labels

ENDINGS = {
    "confidence": "_confidence.png",
    "overlay": "_overlay.jpg",
    "rle": "_rle.json",
    "labels": ".png",
}
"""Suffix of each kind of output file, in the order of writing: the class map comes last, so that
its presence means that the product is complete."""


MANIFEST, INDEX, TABLE = "manifest.sqlite", "index.parquet", "summary.csv"
OWN = (
    MANIFEST, f"{MANIFEST}-wal", f"{MANIFEST}-shm", f"{MANIFEST}-journal", INDEX, TABLE, LOCK,
)  # fmt: skip
"""Files of an output folder that belong to no product."""

_LABEL_FOLDERS = ("masks", "labels")


@dataclass(frozen=True)
class Source:
    """A product to predict and the name of its maps."""

    path: Path  # absolute; links are not followed, because the name holds metadata
    name: str  # relative to the output folder, with forward slashes, without extension

    def outputs(self, write: Iterable[str]) -> dict[str, str]:
        """Output files of some kinds (keys of ``ENDINGS``), relative to the output folder."""
        return {kind: f"{self.name}{ENDINGS[kind]}" for kind in ENDINGS if kind in set(write)}


def find_sources(inputs: Sequence[str | Path], *, out: Path) -> list[Source]:
    """Find the products among the inputs and below input folders, in a fixed order, each once.

    The name of a file in an input folder is its path relative to the folder; other files keep their
    own name. ``Names`` makes names unique. If ``out`` lies inside an input folder it is skipped, so
    that maps of an earlier run are not inputs of the next. Below an input folder, other folders of
    maps, the labels of a data set and what the label page keeps are left out with a warning.

    Raises:
        MissingFileError: if an input does not exist.
        UserError: if there is no input, a folder has no product, or ``out`` is an input folder.
    """
    if not inputs:
        raise UserError("no inputs; give image files or folders")
    found: dict[Path, Source] = {}
    for given in without_labels([given_path(each) for each in inputs]):
        if given.is_dir():
            if given.resolve() == out.resolve():
                raise UserError(f"--out {out} is an input folder; choose another folder")
            products = product_files(files_below(given, PRODUCT_ENDINGS, without=out))
            files = _without_second_links(inputs_among(products, given))
            if not files:
                endings = " ".join(sorted(PRODUCT_ENDINGS))
                raise UserError(f"{given} contains no image (searched for {endings})")
            names = [path.relative_to(given).with_suffix("").as_posix() for path in files]
        elif given.exists():
            require_regular(given)
            files, names = [given], [given.stem]
        else:
            raise MissingFileError(f"{given} does not exist")
        for path, name in zip(files, names, strict=True):
            # resolve() would follow links, whose names hold metadata.
            absolute = Path(os.path.abspath(path))  # noqa: PTH100
            found.setdefault(absolute, Source(absolute, printable(name)))
    return list(found.values())


def inputs_among(files: Sequence[Path], given: Path) -> list[Path]:
    """Leave out labels, maps and what the label page keeps among the files below a folder.

    A warning names the folders that are left out.
    """
    within: dict[Path, Path | None] = {given: None}  # folder → the one left out that contains it

    def left_out(folder: Path) -> Path | None:
        if folder not in within:
            within[folder] = left_out(folder.parent) or (folder if _no_input(folder) else None)
        return within[folder]

    kept = [path for path in files if left_out(path.parent) is None]
    warn_of_all(
        [
            f"{folder} is left out, because it contains {_no_input(folder)}; to use its images, "
            "give this folder itself"
            for folder in sorted({folder for folder in within.values() if folder is not None})
        ]
    )
    return kept


def _without_second_links(files: Sequence[Path]) -> Sequence[Path]:
    """Leave out links to others of the files; one of another name may have other metadata."""
    links = {path for path in files if path.is_symlink()}
    if not links:
        return files
    real = {os.path.realpath(path) for path in files if path not in links}
    return [path for path in files if path not in links or not _is_among(path, real)]


def _is_among(link: Path, real: Collection[str]) -> bool:
    target = os.path.realpath(link)  # resolve() raises for a link that leads to itself
    return os.path.basename(target) == link.name and target in real  # noqa: PTH119


def _no_input(folder: Path) -> str:
    """What a folder contains instead of images to predict, or ""."""
    if (folder / MANIFEST).is_file():
        return "the maps of an earlier prediction"
    if folder.name in _LABEL_FOLDERS and (folder.parent / "images").is_dir():
        return f"the labels of {folder.parent / 'images'}"
    if folder.name == "labelling" and (folder / "history.jsonl").is_file():
        return "files of the label page"
    return ""


class Names:
    """Assigns unique names to products; the folder's own files (``OWN``) are taken."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._files: set[str] = set(OWN)
        self._folders: set[str] = set()
        for name in taken:
            self._take(name)

    def free(self, source: Source) -> Source:
        """Rename a source so that no other product has the same output files.

        The name is its own if possible, else includes its extension (``a.IMG`` next to ``a.png``),
        else has a number or is in a numbered folder.
        """
        for name in _candidates(source):
            if self._is_free(name):
                self._take(name)
                return Source(source.path, name)
        raise AssertionError("candidates are infinite")

    def _is_free(self, name: str) -> bool:
        files = [name + ending for ending in ENDINGS.values()]
        return not any(file in self._files or file in self._folders for file in files) and not any(
            folder in self._files for folder in _folders(name)
        )

    def _take(self, name: str) -> None:
        self._files.update(name + ending for ending in ENDINGS.values())
        self._folders.update(_folders(name))


def refuse_overwriting_inputs(sources: Sequence[Source], out: Path) -> None:
    """Raise an error if a map would overwrite an input.

    Raises:
        UserError: with the path of the input.
    """
    root = out.resolve()

    @cache
    def below_out(folder: Path) -> Path | None:
        real = folder.resolve()
        return real if real.is_relative_to(root) else None

    folders = ((below_out(source.path.parent), source.path.name) for source in sources)
    inputs = {folder / name for folder, name in folders if folder is not None}
    if not inputs:
        return
    for source in sources:
        for file in source.outputs(ENDINGS).values():
            if root / file in inputs:
                raise UserError(
                    f"{out / file} is an input and would be overwritten; choose another --out"
                )


def refuse_overwriting_others(sources: Iterable[Source], out: Path, write: Iterable[str]) -> None:
    """Raise an error if a map of a new product would overwrite a file, which someone else wrote.

    Args:
        sources: products that are not in the manifest of the folder.
        write: kinds of files that will be written (keys of ``ENDINGS``).

    Raises:
        UserError: with the path of the file.
    """
    if not out.is_dir():
        return
    kinds = set(write)
    for source in sources:
        for file in source.outputs(kinds).values():
            refuse_existing(out / file)


def refuse_existing(path: Path) -> None:
    """Raise a UserError if a path is a file or a link; a folder cannot be overwritten."""
    if os.path.lexists(path) and not path.is_dir():
        raise UserError(
            f"{path} exists and was not written by a prediction in this folder; choose another "
            "--out, or move the file"
        )


def _candidates(source: Source) -> Iterator[str]:
    yield source.name
    whole = source.name + source.path.suffix
    yield whole
    number = 2
    while True:
        yield f"{whole}~{number}"
        yield f"~{number}/{whole}"  # if a parent folder has the name of another product's file
        number += 1


def _folders(name: str) -> list[str]:
    return [parent.as_posix() for parent in PurePosixPath(name).parents][:-1]
