"""Folder layouts. Each file reads one layout; ``open_dataset`` recognises the layout.

To add a layout, add a file with ``missing(root)`` and ``read(root)``, and a line in ``LAYOUTS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from s5mars.data.dataset import Dataset
from s5mars.data.layouts import ai4mars, mars_bench, mars_seg, plain, s5mars_release
from s5mars.data.layouts.files import MASK_SUFFIX
from s5mars.errors import MissingFileError, UserError, as_typed, listed
from s5mars.files import given_path
from s5mars.products.files import LISTED_ENDINGS, files_below


@dataclass(frozen=True)
class Layout:
    """How to recognise and read a layout."""

    signature: str  # one line for messages
    missing: Callable[[Path], list[str]]  # what a folder lacks to have this layout
    read: Callable[..., Dataset]  # (root, *, lists)
    check: Callable[[Path], object] | None = None  # what ``read`` refuses; writes nothing


LAYOUTS: dict[str, Layout] = {
    "ai4mars": Layout(ai4mars.SIGNATURE, ai4mars.missing, ai4mars.read),
    "mars-seg": Layout(mars_seg.SIGNATURE, mars_seg.missing, mars_seg.read),
    "mars-bench": Layout(mars_bench.SIGNATURE, mars_bench.missing, mars_bench.read),
    "s5mars": Layout(s5mars_release.SIGNATURE, s5mars_release.missing, s5mars_release.read),
    "plain": Layout(plain.SIGNATURE, plain.missing, plain.read, plain.check),
}
"""In the order in which they are tried, the most specific first."""


def open_dataset(path: Path | str, *, splits: Path | None = None) -> Dataset:
    """Open a folder of rover images and labels.

    No file is decoded, with one exception: for a folder of 40 labelled images or more without split
    lists all masks are read once, and stratified lists are written to its ``splits/``. Images with
    new masks are added to the train list of such lists.

    Args:
        path: Path to the folder.
        splits: Path to the folder of the split lists, read and written there, not in ``path``.

    Raises:
        MissingFileError: if the folder does not exist, is empty or has no image.
        UserError: if no layout is recognised (the message lists what was expected and found), its
            description is wrong, or a split list names unknown files.
    """
    return find_layout(path).read(Path(path), lists=splits)


def check_data_set(path: Path | str) -> None:
    """Refuse a folder that is no data set; reads names only and writes nothing.

    Raises:
        MissingFileError, UserError: As ``open_dataset``.
    """
    layout = find_layout(path)
    if layout.check is not None:
        layout.check(Path(path))


def find_layout(path: Path | str) -> Layout:
    """The layout of a folder, from the names in it; raises as ``open_dataset``."""
    root = given_path(path)
    if not root.exists():
        raise MissingFileError(f"{root}: no such folder")
    if not root.is_dir():
        raise UserError(f"{root} is a file: give the folder of the data set")
    found = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    if not found:
        raise MissingFileError(f"{root}: the folder is empty")
    # A data set with a `dataset.yaml` may also contain folders of another layout, such as `labels/`
    # of a label tool.
    if (root / plain.DESCRIPTION).is_file() and not plain.missing(root):
        return LAYOUTS["plain"]
    for candidate in LAYOUTS.values():
        if not candidate.missing(root):
            return candidate
    if remedy := _suffixed(root):
        raise UserError(f"{root} has no known layout; {remedy}")
    if not_yet := _unlabelled(root):
        raise UserError(f"{root} has no known layout; {not_yet}")
    looked = "; ".join(f"{name}: {each.signature}" for name, each in LAYOUTS.items())
    raise UserError(f"{root} has no known layout; found {listed(found)}; known layouts: {looked}")


def _suffixed(root: Path) -> str:
    """What to do if masks such as ``X_mask.png`` lie beside the images; empty if none do."""
    for folder in (root, root / "images"):
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        stems = {path.stem for path in paths}
        for path in paths:
            if (image := MASK_SUFFIX.sub("", path.stem)) != path.stem and image in stems:
                return (
                    f"{path.name} seems to be the mask of {image}: `s5mars import {folder} "
                    f"--images {folder} --out FOLDER` makes a data set of both"
                )
    return ""


def _unlabelled(root: Path) -> str:
    """What to do with a folder that holds nothing but images; empty if it is another."""
    folders = {path.name for path in root.iterdir() if path.is_dir()}
    if folders - {"images"} or not files_below(root, LISTED_ENDINGS):
        return ""
    return (
        f"it holds images without masks: paint some with `s5mars label {as_typed(root)} --classes "
        '"soil,rock"`, or map them with the installed model, '
        f"`s5mars predict {as_typed(root)} --out maps`"
    )
