"""The images that labels belong to: found by the names that tools give them, and put in place."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from s5mars.errors import MissingFileError, UserError
from s5mars.files import below
from s5mars.products.files import LISTED_ENDINGS, PRODUCT_ENDINGS, files_below, product_files


class Images:
    """The images below a folder.

    Args:
        without: folders or files that are no images to label, such as masks.

    Raises:
        MissingFileError: if there is no such folder, or no image in it.
    """

    def __init__(self, folder: Path, *, without: Collection[Path] = ()) -> None:
        if not folder.is_dir():
            raise MissingFileError(f"{folder}: no such folder of images")
        self.folder = folder
        left_out = {path.resolve() for path in without}
        found = product_files(files_below(folder, LISTED_ENDINGS))
        self.files: dict[str, Path] = {}  # path below the folder with its ending → file
        for path in found:
            real = path.resolve()
            if left_out.isdisjoint((real, *real.parents)):
                self.files[path.relative_to(folder).as_posix()] = path
        if not self.files:
            raise MissingFileError(
                f"{folder}: contains no image to label ({' '.join(sorted(LISTED_ENDINGS))})"
            )
        self._by_tail: dict[str, set[str]] = {}
        for name in self.files:
            for key in {name, _as_uploaded(name)}:
                for tail in (*_tails(key), *_tails(_stem(key))):
                    self._by_tail.setdefault(tail, set()).add(name)

    def find(self, names: Iterable[str]) -> str:
        """The image that an export means, as a key of ``files``: the first name that fits counts.

        A name may have folders before the image's path, or lack some of the image's folders; its
        ending may differ.

        Raises:
            UserError: if none of them fits, or one fits several images.
        """
        tried = [cleaned for name in names if (cleaned := _cleaned(name))]
        for name in tried:
            for known in (name, _stem(name)):
                if known in self.files:
                    return known
                if found := self._fitting(known):
                    if len(found) > 1:
                        raise UserError(
                            f"{name!r} matches {len(found)} images, such as "
                            f"{' and '.join(sorted(found)[:2])}"
                        )
                    return found.pop()
        raise MissingFileError(f"no image named {tried[0] if tried else '(nothing)'!r}")

    def _fitting(self, name: str) -> set[str]:
        whole = self._by_tail.get(name, set())  # the name is the end of an image's path
        if whole:
            return set(whole)
        for tail in _tails(name)[1:]:  # or an image's whole path is the end of the name
            fits = {
                image
                for image in self._by_tail.get(tail, ())
                if tail in (image, _stem(image), _as_uploaded(image), _stem(_as_uploaded(image)))
            }
            if fits:
                return fits
        return set()


def place(source: Path, target: Path) -> bool:
    """Put an image, and the label of a product, at another place.

    Returns:
        True if it is a hard link; False if it had to be copied, because the file system has no hard
        links or is another one.

    Raises:
        OSError: if it can be neither linked nor copied.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()  # a link to a symbolic link would point nowhere
    linked = True
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copy2(source, target)
        linked = False
    if target.suffix.lower() == ".img":
        for companion in source.parent.glob(f"{_escaped(source.stem)}.*"):
            ending = companion.suffix.lower()
            if ending in PRODUCT_ENDINGS - LISTED_ENDINGS and companion.is_file():
                shutil.copy2(companion, below(target.parent, companion.name, source=source))
    return linked


def _escaped(stem: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", stem)


def _cleaned(name: str) -> str:
    """A path with forward slashes, without a drive or steps upwards."""
    parts = PurePosixPath(re.sub(r"^[A-Za-z]:", "", name).replace("\\", "/")).parts
    kept: list[str] = []
    for part in parts:
        if part == "..":
            kept.clear()
        elif part != "/":
            kept.append(part)
    return "/".join(kept)


def _tails(name: str) -> list[str]:
    """``"a/b/c"`` → ``["a/b/c", "b/c", "c"]``."""
    parts = name.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    known = path.suffix.lower() in PRODUCT_ENDINGS and path.name != path.suffix
    return path.with_suffix("").as_posix() if known else name


def _as_uploaded(name: str) -> str:
    """What becomes of a name when a file is uploaded to Label Studio, whose Django cleans it."""
    return "/".join(re.sub(r"[^-\w.]", "", part.replace(" ", "_")) for part in name.split("/"))
