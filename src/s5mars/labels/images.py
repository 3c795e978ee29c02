"""The images that labels belong to: found by the names that tools give them, and put in place."""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from s5mars.data.layouts.files import composed
from s5mars.errors import MissingFileError, UserError
from s5mars.files import below
from s5mars.products.files import LISTED_ENDINGS, PRODUCT_ENDINGS, files_below, product_files

_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")


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
        self.broken: list[Path] = []  # links to nothing, which are not among the files
        listed = files_below(folder, LISTED_ENDINGS, broken=self.broken)
        links = {*self.broken}
        self.files: dict[str, Path] = {}  # path below the folder with its ending → file
        for path in product_files(path for path in listed if path not in links):
            real = path.resolve()
            if left_out.isdisjoint((real, *real.parents)):
                self.files[path.relative_to(folder).as_posix()] = path
        if not self.files:
            raise MissingFileError(
                f"{folder}: contains no image to label ({' '.join(sorted(LISTED_ENDINGS))})"
            )
        self._by_name, self._by_stem = _Paths(), _Paths()
        self._as_uploaded = _Paths(), _Paths()
        for name in self.files:
            spelled = composed(name)
            self._by_name.add(spelled, name)
            self._by_stem.add(_stem(spelled), name)
            for uploaded in {_as_uploaded(name), _as_uploaded(spelled)}:
                for paths, key in zip(self._as_uploaded, (uploaded, _stem(uploaded)), strict=True):
                    paths.add(key, name)

    def find(
        self, names: Iterable[str], *, stems: Iterable[str] = (), agreeing: bool = False
    ) -> str:
        """The image that an export means, as a key of ``files``: the first name that fits counts.

        A name may have folders before the image's path, or lack some of the image's folders; its
        ending may differ. An image whose whole path is the name is preferred to one whose path ends
        with it. The prefix of an upload to Label Studio is left out if no image has it.

        Args:
            names: names of the image, the best one first.
            stems: names without the ending of the image, which are tried before; what looks like an
                ending there is a part of the name.
            agreeing: whether all names that fit must fit the same image.

        Raises:
            UserError: if none of them fits, or one fits several images, or they do not agree.
        """
        found = [(name, self._fitting_stem(name)) for name in map(_cleaned, stems) if name]
        found += [(name, self._fitting(name)) for name in map(_cleaned, names) if name]
        meant: dict[str, str] = {}  # image → its first name
        for name, fitting in found:
            images = fitting or self._uploaded(name)
            if len(images) > 1:
                raise UserError(
                    f"{name!r} matches {len(images)} images, such as "
                    f"{' and '.join(sorted(images)[:2])}"
                )
            if images:
                meant.setdefault(next(iter(images)), name)
            if meant and not agreeing:
                break
        if len(meant) > 1:
            first, second = list(meant.values())[:2]
            raise UserError(f"{first!r} and {second!r} are different images")
        if meant:
            return next(iter(meant))
        raise MissingFileError(f"no image named {found[0][0] if found else '(nothing)'!r}")

    def _fitting(self, name: str) -> Collection[str]:
        if name in self.files:
            return [name]
        name = composed(name)
        uploaded, _ = self._as_uploaded
        return (
            self._by_name.fitting(name)
            or uploaded.fitting(name)
            or self._fitting_stem(name)
            or self._fitting_stem(_stem(name))
        )

    def _fitting_stem(self, name: str) -> Collection[str]:
        name = composed(name)
        _, uploaded = self._as_uploaded
        return self._by_stem.fitting(name) or uploaded.fitting(name)

    def _uploaded(self, name: str) -> Collection[str]:
        """The images that Label Studio may have given a name; it knows nothing of their folders."""
        prefixed = _UPLOADED.fullmatch(name.rpartition("/")[2])
        if prefixed is None:
            return ()
        uploaded, uploaded_stem = self._as_uploaded
        name = _as_uploaded(composed(prefixed[1]))
        return (
            uploaded.ending(name) or uploaded_stem.ending(name) or uploaded_stem.ending(_stem(name))
        )


class _Paths:
    """Images by their paths, and by the ends of their paths."""

    def __init__(self) -> None:
        self._whole: dict[str, set[str]] = defaultdict(set)
        self._ends: dict[str, set[str]] = defaultdict(set)

    def add(self, path: str, image: str) -> None:
        self._whole[path].add(image)
        for tail in _tails(path):
            self._ends[tail].add(image)

    def fitting(self, name: str) -> Collection[str]:
        """The images whose path is a name, or else ends with it, or else is its end."""
        return (
            self._whole.get(name)
            or self.ending(name)
            or next(filter(None, map(self._whole.get, _tails(name))), ())
        )

    def ending(self, name: str) -> Collection[str]:
        """The images whose path ends with a name."""
        return self._ends.get(name, ())


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
