"""The folder that is painted: a plain data set, made from a folder of images where it is none."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from s5mars.classes import IGNORE, MaskCoding, Taxonomy, require_printable, with_missing_colours
from s5mars.data.layouts.files import list_images
from s5mars.data.layouts.plain import DESCRIPTION, read_description, write_description
from s5mars.errors import MissingFileError, UserError
from s5mars.predict.sources import inputs_among
from s5mars.products.files import LISTED_ENDINGS, PDS_ENDINGS, PRODUCT_ENDINGS, files_below
from s5mars.text.numbers import plural

STATE = "labelling"
"""Folder of what the loop keeps beside the data set: the history, caches, runs."""

logger = logging.getLogger("s5mars")


@dataclass(frozen=True)
class LabelFolder:
    """Images to paint, by name, and what the ids in their masks mean."""

    root: Path
    taxonomy: Taxonomy
    coding: MaskCoding
    images: dict[str, Path]  # name (path below images/ without the ending) → file

    @property
    def state(self) -> Path:
        """The folder of the loop's own files."""
        return self.root / STATE

    @property
    def ignored_id(self) -> int:
        """The id of unpainted pixels in mask files."""
        return IGNORE if IGNORE in self.coding.ignored else min(self.coding.ignored)

    def id_of(self, index: int) -> int:
        """The id of a class in mask files; the first one where it has several."""
        return min(k for k, value in self.coding.index_of.items() if value == index)


def open_folder(root: Path, classes: Taxonomy | None) -> LabelFolder:
    """Open a plain folder, or make one around the images of a folder.

    Args:
        root: a folder with ``images/``, or with images, which then get links in a new ``images/``;
            images that are added beside linked ones later get links, too.
        classes: the classes, written to ``dataset.yaml``. Those of an existing ``dataset.yaml`` may
            be continued by further ones, and by nothing else. None takes the existing ones.

    Raises:
        MissingFileError: if there is no such folder, no image, or no classes.
        UserError: if the classes contradict those of ``dataset.yaml``, or its ids do not fit masks
            of 8 bits with an ignored id.
    """
    if not root.is_dir():
        raise MissingFileError(f"{root}: no such folder")
    if classes is None and not (root / DESCRIPTION).exists():
        raise _no_classes(root / DESCRIPTION)  # before anything is written
    if (root / "images").is_dir():
        _link_new_images(root)
    else:
        _link_images(root)
    images = list_images(root / "images")
    if not images:
        raise MissingFileError(
            f"{root / 'images'}: contains no image ({' '.join(sorted(PRODUCT_ENDINGS))})"
        )
    taxonomy, coding = _described(root / DESCRIPTION, classes)
    too_large = [file_id for file_id in coding.index_of if file_id > IGNORE]
    if too_large or not {k for k in coding.ignored if k <= IGNORE}:
        what = f"the id {too_large[0]}" if too_large else "no id to ignore"
        raise UserError(
            f"{root / DESCRIPTION} has {what}; the label page writes masks of 8 bits: use ids in "
            "0..254 and `ignore: [255]`"
        )
    (root / "masks").mkdir(exist_ok=True)
    aside = root / "unlabelled"
    if aside.is_dir() and (unpaintable := list_images(aside)):
        logger.warning(
            "%s: %s only in the pool; only images in images/ can be painted",
            aside,
            plural(len(unpaintable), "image is", "images are"),
        )
    coding = replace(coding, ignored=frozenset(k for k in coding.ignored if k <= IGNORE))
    return LabelFolder(root, taxonomy, coding, images)


def named_classes(text: str) -> Taxonomy:
    """Classes from ``"soil,bedrock,rock"``, or from the ``dataset.yaml`` whose path is given.

    Raises:
        UserError: if a name is empty, stands twice or has control characters.
    """
    if text.lower().endswith((".yaml", ".yml")):
        return read_description(Path(text))[0]
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UserError(f'--classes must be names such as "soil,bedrock,rock" (got {text!r})')
    require_printable(names)
    return Taxonomy.of_names("labels", names)


def _described(path: Path, classes: Taxonomy | None) -> tuple[Taxonomy, MaskCoding]:
    if not path.exists():
        if classes is None:
            raise _no_classes(path)
        write_description(path, classes, MaskCoding.identity(len(classes)))
        return read_description(path)
    taxonomy, coding = read_description(path)
    if classes is None or classes.names == taxonomy.names:
        return taxonomy, coding
    if classes.names[: len(taxonomy)] != taxonomy.names:
        raise UserError(
            f"--classes {','.join(classes.names)} contradicts {path}, which has "
            f"{','.join(taxonomy.names)}; repeat these and add new ones at the end, or omit "
            "--classes"
        )
    there = [each.colour for each in taxonomy.classes]
    added = classes.classes[len(taxonomy) :]
    given = [*there, *(None if each.colour in there else each.colour for each in added)]
    colours = with_missing_colours(classes.names, given)[len(taxonomy) :]
    added = tuple(replace(each, colour=colour) for each, colour in zip(added, colours, strict=True))
    index_of = dict(coding.index_of)
    free = [k for k in range(IGNORE) if k not in index_of and k not in coding.ignored]
    if len(free) < len(added):
        raise UserError(
            f"{path} leaves {plural(len(free), 'id')} of 0..254 for the classes that --classes "
            f"adds ({', '.join(classes.names[len(taxonomy) :])}); remove unused ids from it"
        )
    index_of |= zip(free, range(len(taxonomy), len(classes)), strict=False)
    longer = Taxonomy(taxonomy.name, (*taxonomy.classes, *added))
    write_description(path, longer, MaskCoding(index_of, coding.ignored))
    return read_description(path)


def _no_classes(path: Path) -> MissingFileError:
    return MissingFileError(
        f'{path} is missing; name the classes with --classes "soil,bedrock,rock", or take '
        "those of a model, as with --start-from navcam"
    )


def _link_images(root: Path) -> None:
    """Make ``images/`` with a link to each image or product; the files stay where they are."""
    files = _files_outside(root, "masks", "unlabelled")
    if not files:
        raise MissingFileError(
            f"{root}: contains no image to paint ({' '.join(sorted(PRODUCT_ENDINGS))}): put images "
            "into the folder, but not into masks/ or unlabelled/"
        )
    # images/ appears when it is complete, so that an interrupted command can be repeated.
    new = root / ".images.new"
    shutil.rmtree(new, ignore_errors=True)
    for path in files:
        _link(path, new / path.relative_to(root))
    new.rename(root / "images")
    logger.warning("%s: made images/ with links to %s", root, plural(len(files), "file"))


def _link_new_images(root: Path) -> None:
    """Link images that were added beside linked ones, and warn about all others outside.

    Other folders may hold what commands have written, such as maps, which are no images to paint.
    """
    images = root / "images"
    listed = files_below(images, PRODUCT_ENDINGS)
    folders = {path.parent for path in listed if _is_own_link(root, path)}
    names = {path.with_suffix("") for path in listed}
    shown = {_identity(path) for path in listed}
    linked, left = [], []
    for path in _files_outside(root, "images", "masks", "unlabelled"):
        link = images / path.relative_to(root)
        if _identity(path) in shown:
            continue
        # A second picture of one name is an error; a label belongs to the product of its name.
        fits = link.suffix.lower() in PDS_ENDINGS or link.with_suffix("") not in names
        if link.parent in folders and fits:
            _link(path, link)
            linked.append(path)
            names.add(link.with_suffix(""))
        elif path.suffix.lower() in LISTED_ENDINGS:
            left.append(path)
    if linked:
        logger.warning(
            "%s: added links to %s, the first: %s",
            images,
            plural(len(linked), "new file"),
            linked[0],
        )
    if left:
        logger.warning(
            "%s: %s not shown, the first: %s; only images in images/ can be painted",
            root,
            plural(len(left), "image outside images/ is", "images outside images/ are"),
            left[0],
        )


def _files_outside(root: Path, *folders: str) -> list[Path]:
    """Images and products below a folder, but not in these folders or in that of the loop.

    Maps that `predict` has written are left out, too.
    """
    files = files_below(root, PRODUCT_ENDINGS, without=root / STATE)
    outside = [path for path in files if path.relative_to(root).parts[0] not in folders]
    return inputs_among(outside, root)


def _link(path: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(path, link.parent))


def _is_own_link(root: Path, path: Path) -> bool:
    """Whether ``_link_images`` would make this link."""
    if not path.is_symlink():
        return False
    original = root / path.relative_to(root / "images")
    return str(path.readlink()) == os.path.relpath(original, path.parent)


def _identity(path: Path) -> tuple[int, int] | Path:
    """What is the same for all names of a file."""
    try:
        status = path.stat()
    except OSError:
        return path  # a broken link is reported when it is opened
    return status.st_dev, status.st_ino
