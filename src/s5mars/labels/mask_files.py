"""Folders of masks: colours or ids with ``dataset.yaml``, or a folder of masks for each class.

With ``dataset.yaml`` a mask holds the colours or the ids of its classes, see ``colours_or_ids``.
Without it, each folder is a class, and a mask is painted where it is not black (or not
transparent): ``rock/NAME.png``, or ``NAME/rock.png``. A mask has the name of its image, or that
with a suffix such as ``_mask``.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from s5mars.classes import IGNORE, UNLABELLED_COLOUR, Colour, MaskCoding, Taxonomy
from s5mars.data.layouts.files import MASK_SUFFIX
from s5mars.data.layouts.plain import DESCRIPTION, read_description, stated_keys
from s5mars.data.read import index_table, listed_ids
from s5mars.errors import UserError
from s5mars.labels.colours import Coloured
from s5mars.labels.colours_or_ids import (
    Declared,
    Kind,
    is_coloured,
    kind_of,
    kinds_with_colours,
)
from s5mars.labels.images import Images
from s5mars.labels.regions import Entry, Export, Note, Region, Size, attempt, mask_entry
from s5mars.products.decode import MaskFile, decode_mask, head_size
from s5mars.products.files import IMAGE_ENDINGS, files_below
from s5mars.products.raster import Raster

TITLE = "masks"

_LOSSLESS = IMAGE_ENDINGS - {".jpg", ".jpeg", ".webp"}


def description_of(root: Path) -> Path | None:
    """The ``dataset.yaml`` of a folder of masks, in it or beside it."""
    places = (root / DESCRIPTION, root.parent / DESCRIPTION)
    return next((path for path in places if path.is_file()), None)


def read(root: Path, images: Path) -> Export:
    """The labels of mask files.

    Args:
        root: a folder of masks, or one with ``masks/``.
        images: folder of the images; if it is ``root``, masks are told from images by a suffix.

    Raises:
        UserError: if there is no mask, or ``dataset.yaml`` is wrong, or it is missing and the
            folders do not name classes.
    """
    description = description_of(root)
    folder = root / "masks" if (root / "masks").is_dir() else root
    files = files_below(folder, _LOSSLESS)
    if folder.resolve() == images.resolve():
        files = [path for path in files if MASK_SUFFIX.search(path.stem)]
    elif images.resolve().is_relative_to(folder.resolve()):
        within = images.resolve()
        files = [p for p in files if not Path(os.path.realpath(p)).is_relative_to(within)]
    if not files:
        endings = " ".join(sorted(_LOSSLESS))
        raise UserError(f"{folder} contains no mask ({endings}); give the export's folder")
    if description is not None:
        return _described(folder, files, description)
    return _by_class(folder, files, Images(images, without=files))


def _described(folder: Path, files: Sequence[Path], description: Path) -> Export:
    taxonomy, coding = read_description(description)
    colours = {each.name: each.colour for each in taxonomy.classes}
    names = {each.colour: each.name for each in taxonomy.classes}
    names.pop(UNLABELLED_COLOUR, None)
    declared = _declared(description, taxonomy, coding, names)

    def entries() -> Iterator[Entry | Note]:
        for name, colour in colours.items():
            if colour == UNLABELLED_COLOUR or names.get(colour) != name:
                yield (
                    f"the class {name!r} of dataset.yaml has the colour of unpainted pixels or of "
                    "another class; only masks of ids can hold it"
                )
        coloured = kinds_with_colours(files, declared)
        for path in files:
            regions = partial(_regions_described, path, taxonomy, coding, names, coloured)
            of_image = _names(path.relative_to(folder).with_suffix(""))
            # Some tools keep the ending of the image: a.jpg.png is the mask of a.jpg.
            yield mask_entry(of_image, path, regions, stems=of_image)

    return Export("masks with dataset.yaml", entries, colours, frozenset(files))


def _declared(
    description: Path, taxonomy: Taxonomy, coding: MaskCoding, names: Mapping[Colour, str]
) -> Declared:
    with_colour, with_ids = stated_keys(description, "color"), stated_keys(description, "ids")
    return Declared(
        colours=names.keys(),
        stated_colours=[colour for colour, name in names.items() if name in with_colour],
        coding=coding,
        stated_ids=[k for k, index in coding.index_of.items() if taxonomy.names[index] in with_ids],
    )


def _by_class(folder: Path, files: Sequence[Path], images: Images) -> Export:
    of_image: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    homeless: list[Note] = []
    labels: set[str] = set()
    for path in files:
        relative = path.relative_to(folder)
        found = _placed(relative, images)
        if found is None:
            homeless.append(
                f"{path}: no image and class fit its name (CLASS/NAME.png or NAME/CLASS.png, "
                f"and an image NAME in {images.folder})"
            )
        else:
            label, image = found
            labels.add(label)
            of_image[image].append((label, path))
    if not of_image:
        raise UserError(
            f"{folder}: no {DESCRIPTION} with the colours of the classes, and no folders of "
            "classes such as rock/NAME.png with names of images; add one of them"
        )

    def entries() -> Iterator[Entry | Note]:
        yield from homeless
        for image, masks in sorted(of_image.items()):
            try:
                size, _ = head_size(masks[0][1])
            except UserError:
                size = None  # each mask tells what is wrong with it
            yield Entry((image,), masks[0][1], size, partial(_regions_of_files, masks))

    declared = dict.fromkeys(sorted(labels))
    return Export("one mask per class", entries, declared, frozenset(files))


def _placed(relative: Path, images: Images) -> tuple[str, str] | None:
    """The label and the image of a mask in a folder of masks of classes."""
    parts = relative.with_suffix("").parts
    if len(parts) < 2:
        return None
    # rock/a/b.png is of the image a/b, and a/b/rock.png too, if there is such an image.
    for label, rest in ((parts[0], parts[1:]), (parts[-1], parts[:-1])):
        for name in _names(Path(*rest)):
            try:
                return label, images.find([name], stems=[name])
            except UserError:
                continue
    return None


def _names(relative: Path) -> tuple[str, ...]:
    """Names of the image of a mask: the mask's own, and without suffixes such as ``_mask``.

    Args:
        relative: path of the mask below its folder, without its ending.
    """
    name = PurePosixPath(relative.as_posix())
    names = [name.as_posix()]
    while (shorter := MASK_SUFFIX.sub("", name.name)) and shorter != name.name:
        name = name.with_name(shorter)
        names.append(name.as_posix())
    return tuple(names)


def _regions_of_files(masks: Sequence[tuple[str, Path]], size: Size) -> Iterator[Region | Note]:
    for label, path in masks:
        yield attempt(path, "mask", partial(_binary, label, path, size))


def _binary(label: str, path: Path, size: Size) -> Region:
    mask = decode_mask(path)
    painted = mask.ids != 0
    if painted.ndim == 3:
        painted = painted.any(-1)
    if mask.valid is not None:  # drawn on a transparent ground, in any colour
        painted = mask.valid
    if painted.shape[::-1] != size:
        raise ValueError(
            f"the mask has {painted.shape[1]}×{painted.shape[0]} pixels, but the first mask "
            f"of its image has {size[0]}×{size[1]}"
        )
    return Region(label, painted)


def _regions_described(
    path: Path,
    taxonomy: Taxonomy,
    coding: MaskCoding,
    names: Mapping[Colour, str],
    coloured: Collection[Kind],
    size: Size,
) -> Iterator[Region | Note]:
    """By colour for the kinds of masks that hold colours, else by id."""
    try:
        mask = decode_mask(path)
        kind = kind_of(mask)
        if is_coloured(mask) or kind in coloured:
            # The palette of a grey mask, if there is one, shows nothing.
            raster = Raster(mask.ids if kind is Kind.GREY else mask.colours, mask.valid)
            yield from Coloured.of(path, raster, names, (UNLABELLED_COLOUR,)).regions()
            return
    except UserError as error:
        yield str(error)
        return
    yield from _regions_of_ids(path, mask, taxonomy, coding)


def _regions_of_ids(
    path: Path, mask: MaskFile, taxonomy: Taxonomy, coding: MaskCoding
) -> Iterator[Region | Note]:
    ids = mask.ids if mask.ids.ndim == 2 else mask.ids[..., 0]
    if ids.dtype.kind == "f" or ids.min() < 0 or ids.max() > 65535:
        yield f"{path}: mask values are not whole numbers in 0..65535"
        return
    valid = np.ones(ids.shape, bool) if mask.valid is None else mask.valid
    values, counts = np.unique(ids[valid], return_counts=True)
    indices = np.where(valid, index_table(coding)[ids], IGNORE)
    for index, name in enumerate(taxonomy.names):
        painted = indices == index
        if painted.any():
            yield Region(name, painted)
    known = coding.index_of.keys() | coding.ignored
    unknown = {int(v): int(n) for v, n in zip(values, counts, strict=True) if int(v) not in known}
    if unknown:
        yield f"{path}: ids that dataset.yaml does not name, and ignored: {listed_ids(unknown)}"
