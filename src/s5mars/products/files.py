"""Lists image files, one for each product."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from s5mars.errors import warn_once
from s5mars.files.reading import special_kind
from s5mars.text.numbers import plural

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
"""Endings of image files without a label, in lower case."""

PDS_ENDINGS = frozenset({".img", ".lbl", ".xml"})
"""Endings of PDS3 and PDS4 products, in lower case."""

LISTED_ENDINGS = IMAGE_ENDINGS | {".img"}
"""Endings of the images of a data set, in lower case; labels are not images."""

PRODUCT_ENDINGS = IMAGE_ENDINGS | PDS_ENDINGS
"""Endings of all files that ``open_product`` reads."""

_LABEL = b"Product_Observational"


def files_below(
    folder: Path,
    endings: Collection[str],
    *,
    without: Path | None = None,
    broken: list[Path] | None = None,
) -> list[Path]:
    """List the files below a folder with these endings, sorted.

    Linked folders are searched too. No folder is searched twice, and its real path is preferred to
    a link. Hidden files and folders are skipped. Pipes, sockets, devices and unreadable folders are
    skipped with one warning, and the folder ``without`` is skipped. Endings are in lower case, such
    as ``{".jpg"}``. There are no files if the folder does not exist. Broken links are files whose
    reader reports them; ``broken`` gets them, too.
    """
    if not folder.is_dir():
        return []
    found: list[Path] = []
    problems: list[str] = []
    seen: set[tuple[int, int]] = set()
    if without is not None and without.is_dir():
        seen.add(_identity(without))
    linked, at = [folder], 0
    while at < len(linked):  # links are searched after all real folders
        direct = [linked[at]]
        at += 1
        while direct:
            here = direct.pop()
            try:
                if (identity := _identity(here)) in seen:
                    continue
                seen.add(identity)
                with os.scandir(here) as scanned:
                    entries = sorted(scanned, key=lambda entry: entry.name)
            except OSError as error:
                problems.append(f"{here} ({error.strerror})")
                continue
            for entry in entries:
                path = here / entry.name
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    (linked if entry.is_symlink() else direct).append(path)
                elif os.path.splitext(entry.name)[1].lower() in endings:  # noqa: PTH122
                    try:
                        special = special_kind(path.stat().st_mode)
                    except OSError:
                        special = None
                        if broken is not None:
                            broken.append(path)
                    if special is None:
                        found.append(path)
                    else:
                        problems.append(f"{path} ({special})")
    if problems:
        left_out = plural(
            len(problems), "unreadable file or folder is", "unreadable files or folders are"
        )
        warn_once(f"{folder}: {left_out} left out; the first: {problems[0]}")
    return sorted(found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself is a broken one
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def product_files(paths: Iterable[Path]) -> list[Path]:
    """Choose one file for each product, in the given order.

    A label or a browse picture is left out if there is an ``.IMG`` of its name. A label without an
    ``.IMG`` is kept, so that the missing data are reported; an ``.xml`` only if it is the label of
    an observation. Hidden files and other endings are left out.
    """
    kept = [
        path
        for path in paths
        if not path.name.startswith(".") and path.suffix.lower() in PRODUCT_ENDINGS
    ]
    images = _images(kept)
    return [
        path
        for path in kept
        if (ending := path.suffix.lower()) == ".img"
        or (_stem(path) not in images and (ending != ".xml" or _observes(path)))
    ]


def state_of(path: Path) -> str | None:
    """Name, size and modification time of each file of a product, as text to compare.

    Those are the file and, for PDS, the label or data beside it of the same name. None if the file
    cannot be found, as for a broken link.
    """
    files = [path]
    if path.suffix.lower() in PDS_ENDINGS:
        endings = sorted({e for ending in PDS_ENDINGS for e in (ending, ending.upper())})
        files += [other for e in endings if (other := path.with_suffix(e)) != path]
    states = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            if file == path:
                return None
        else:
            states.append(f"{file.suffix} {status.st_size} {status.st_mtime_ns}")
    return "\n".join(states)


def without_labels(paths: Sequence[Path]) -> list[Path]:
    """Leave out the label of a product whose ``.IMG`` is among the paths, too."""
    images = _images(paths)
    return [
        path
        for path in paths
        if path.suffix.lower() not in PDS_ENDINGS - {".img"} or _stem(path) not in images
    ]


def _images(paths: Iterable[Path]) -> set[str]:
    return {_stem(path) for path in paths if path.suffix.lower() == ".img"}


def _stem(path: Path) -> str:
    return os.path.splitext(path)[0].lower()  # noqa: PTH122


def _observes(path: Path) -> bool:
    try:
        if special_kind(path.stat().st_mode) is not None:
            return True
        with path.open("rb") as file:
            return _LABEL in file.read(4096)
    except OSError:
        return True  # the reader reports what is wrong with it
