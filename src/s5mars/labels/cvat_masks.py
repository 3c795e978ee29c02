"""CVAT's "Segmentation mask 1.1": one colour mask per image, and ``labelmap.txt``.

Black and the colour of the label ``background`` mean unpainted. Where shapes overlapped, CVAT has
drawn the upper one.

Source: https://docs.cvat.ai/docs/dataset_management/formats/format-smask. A line of the label map
is ``label:R,G,B:parts:actions``; the layout of the folder is Pascal VOC's.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s5mars.classes import UNLABELLED_COLOUR, Colour, Taxonomy
from s5mars.errors import UserError
from s5mars.files import encoded_picture, replacing
from s5mars.files.reading import read_text, reading
from s5mars.labels.colours import regions_of_colours
from s5mars.labels.regions import REMEDY, Entry, Export, Note, Writer, mask_entry
from s5mars.products.files import files_below

TITLE = "CVAT Segmentation mask 1.1"
LABEL_MAP = "labelmap.txt"
CLASS_MASKS = "SegmentationClass"
OBJECT_MASKS = "SegmentationObject"
LISTS = "ImageSets/Segmentation"

_BACKGROUND = "background"


def find(root: Path) -> Path | None:
    """The folder with a label map and class masks; None if there is none."""
    for path in sorted(root.rglob(LABEL_MAP)):
        if (path.parent / CLASS_MASKS).is_dir():
            return path.parent
    return None


def read(folder: Path) -> Export:
    """The labels of a folder for which ``find`` holds.

    Raises:
        DamagedFileError, UserError: if the label map is damaged.
    """
    labels = _label_map(folder / LABEL_MAP)
    masks = folder / CLASS_MASKS
    files = files_below(masks, {".png"})
    # Where no label is black, CVAT gives the colour of the background to what nobody painted.
    unpainted = {UNLABELLED_COLOUR, labels.get(_BACKGROUND, UNLABELLED_COLOUR)}
    declared = {name: colour for name, colour in labels.items() if colour not in unpainted}
    names_of = {colour: name for name, colour in declared.items()}

    def entries() -> Iterator[Entry | Note]:
        for name in sorted(labels.keys() - declared.keys()):
            if (name, labels[name]) != (_BACKGROUND, UNLABELLED_COLOUR):
                yield (
                    f"{folder / LABEL_MAP}: the label {name!r} has the colour of unpainted pixels "
                    "and is ignored; give it another name and colour in CVAT and export it again"
                )
        for path in files:
            name = path.relative_to(masks).with_suffix("").as_posix()
            regions = partial(regions_of_colours, path, names_of, frozenset(unpainted))
            yield mask_entry((), path, regions, stems=(name,))

    objects = files_below(folder / OBJECT_MASKS, {".png"})
    return Export(TITLE, entries, declared, frozenset([*files, *objects]))


def _label_map(path: Path) -> dict[str, Colour]:
    text = read_text(path, kind="label map", remedy=REMEDY)
    labels: dict[str, Colour] = {}
    with reading(path, kind="label map", remedy=REMEDY):
        for line in text.splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            # From the right, because a label may have a colon.
            name, colour, _, _ = line.rsplit(":", 3)
            red, green, blue = (int(np.uint8(int(channel))) for channel in colour.split(","))
            if (red, green, blue) in labels.values() and name not in labels:
                raise ValueError(f"two labels have the colour {colour}")
            labels[name] = (red, green, blue)
    return labels


@contextmanager
def writing(out: Path, taxonomy: Taxonomy) -> Iterator[Writer]:
    """A writer of ``annotations.zip``, which CVAT imports as "Segmentation mask 1.1".

    Class maps become colours, exactly; each class of an image is one object.

    Raises:
        UserError: if a label map cannot hold the name of a class.
    """
    for name in taxonomy.names:
        if ":" in name or "\n" in name or name.startswith("#") or name == _BACKGROUND:
            raise UserError(
                f"CVAT's {LABEL_MAP} cannot contain the class name {name!r}; rename the class in "
                "dataset.yaml and train again, or use --to coco"
            )
    given = [each.colour for each in taxonomy.classes]
    different = Taxonomy.of_names(taxonomy.name, taxonomy.names, given)
    colours = [each.colour for each in different.classes]
    palettes = {
        CLASS_MASKS: np.zeros((256, 3), np.uint8),
        OBJECT_MASKS: np.zeros((256, 3), np.uint8),
    }
    palettes[CLASS_MASKS][: len(taxonomy)] = colours
    palettes[OBJECT_MASKS][: len(taxonomy)] = [voc_colour(k + 1) for k in range(len(taxonomy))]
    names: list[str] = []
    with (
        replacing(out / "annotations.zip") as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        label_map = "# label:color_rgb:parts:actions\nbackground:0,0,0::\n" + "".join(
            f"{name}:{red},{green},{blue}::\n"
            for name, (red, green, blue) in zip(taxonomy.names, colours, strict=True)
        )
        archive.writestr(LABEL_MAP, label_map)

        def add(file_name: str, labels: NDArray[np.uint8]) -> None:
            name = PurePosixPath(file_name).with_suffix("").as_posix()
            for folder, palette in palettes.items():
                png = encoded_picture(Image.fromarray(palette[labels]), ".png")
                archive.writestr(f"{folder}/{name}.png", png, compress_type=zipfile.ZIP_STORED)
            names.append(name)

        yield Writer(out / "images", out / "annotations.zip", add)
        archive.writestr(f"{LISTS}/default.txt", "".join(f"{name}\n" for name in names))


def voc_colour(index: int) -> Colour:
    """The colour of an index in Pascal VOC's palette, whose 0 is black.

    Bit k of a channel, from the highest one down, is bit 3k (red), 3k + 1 (green) or 3k + 2 (blue)
    of the index.
    """
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= ((index >> (3 * place + channel)) & 1) << (7 - place)
    return channels[0], channels[1], channels[2]
