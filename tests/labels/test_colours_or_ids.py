"""Masks with ``dataset.yaml``: unpainted pixels are never a class, and ids stay ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labels import exports
from s5mars.labels.importing import import_labels

SOIL, SKY = (160, 82, 45), (255, 255, 255)
TWO = 'classes: [{name: soil, color: "#a0522d"}, {name: sky, color: "#ffffff"}]\n'
NO_GREY = 'classes: [{name: soil, color: "#a0522d"}, {name: sky, color: "#64c8ff"}]\n'
STATED = NO_GREY.replace("soil,", "soil, ids: [0],").replace("sky,", "sky, ids: [1],")
WHITE = 'classes: [{name: rock, color: "#ffffff"}]\n'

Rows = Sequence[int]
"""Values of six stripes of a mask, from the top."""

Make = Callable[[Rows], Image.Image]

ALL = (0, 0, 0, 0, 0, 0)


def rows(values: Rows) -> np.ndarray:
    return np.repeat(np.array(values, np.uint8), 5)[:, None].repeat(40, 1)


def grey(values: Rows) -> Image.Image:
    return Image.fromarray(rows(values))


def rgb(values: Rows, colours: Sequence[tuple[int, ...]] = ((0, 0, 0), SOIL, SKY)) -> Image.Image:
    return Image.fromarray(np.array(colours, np.uint8)[rows(values)])


def opaque(values: Rows) -> Image.Image:
    return rgb(values, ((0, 0, 0, 255), (*SOIL, 255), (*SKY, 255)))


def indexed(
    values: Rows, colours: Sequence[tuple[int, ...]] = ((0, 0, 0), SOIL, SKY)
) -> Image.Image:
    picture = grey(values)
    picture.putpalette([channel for colour in colours for channel in colour])
    return picture


def black_palette(values: Rows) -> Image.Image:
    return indexed(values, [(0, 0, 0)] * 256)


def bits(values: Rows) -> Image.Image:
    return Image.fromarray(rows(values) != 0)


def imported(
    tmp_path: Path, text: str, masks: Mapping[str, Image.Image], ending: str = "png"
) -> dict[str, list[int]]:
    """Name of each image with labels → the rows of its mask, 255 where unpainted."""
    images = exports.photos(tmp_path / "photos", [f"{name}.jpg" for name in (*masks, "last")])
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "dataset.yaml").write_text(text)
    for name, mask in masks.items():
        mask.save(folder / f"{name}.{ending}")
    import_labels(folder, images=images, out=tmp_path / "out")
    found = sorted((tmp_path / "out" / "masks").iterdir())
    return {path.stem: np.asarray(Image.open(path))[::5, 7].tolist() for path in found}


PAINT = (0, 1, 1, 0, 0, 0)
PAINTED = [255, 0, 0, 255, 255, 255]
ONLY_WHITE = (0, 0, 2, 0, 0, 0)
WHITE_PAINTED = [255, 255, 1, 255, 255, 255]


@pytest.mark.parametrize("make", [rgb, opaque, indexed], ids=lambda make: make.__name__)
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_masks_without_paint_or_with_grey_paint(make: Make, ending: str, tmp_path: Path) -> None:
    masks = {"black": make(ALL), "paint": make(PAINT), "white": make(ONLY_WHITE)}
    found = imported(tmp_path, TWO, masks, ending)
    assert found == {"paint": PAINTED, "white": WHITE_PAINTED}


@pytest.mark.parametrize("make", [rgb, opaque, indexed], ids=lambda make: make.__name__)
def test_no_mask_shows_more_than_black_and_white(make: Make, tmp_path: Path) -> None:
    masks = {"black": make(ALL), "white": make(ONLY_WHITE)}
    assert imported(tmp_path, TWO, masks) == {"white": WHITE_PAINTED}


def test_the_ids_of_a_coloured_export_do_not_make_black_a_class(tmp_path: Path) -> None:
    masks = {"black": rgb(ALL), "paint": rgb(PAINT), "index": indexed(ALL)}
    assert imported(tmp_path, STATED, masks) == {"paint": PAINTED}


def test_black_grey_masks_beside_coloured_ones(tmp_path: Path) -> None:
    masks = {"black": grey(ALL), "paint": rgb(PAINT)}
    assert imported(tmp_path, NO_GREY, masks) == {"paint": PAINTED}


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_white_on_black_is_the_colour_of_a_class(ending: str, tmp_path: Path) -> None:
    values = (0, 255, 255, 0, 0, 0)
    masks = {"black": grey(ALL), "grey": grey(values), "bits": bits(values), "none": bits(ALL)}
    found = imported(tmp_path, WHITE, masks, ending)
    assert found == {"grey": PAINTED, "bits": PAINTED}


IDS = (0, 1, 1, 0, 255, 0)
LABELS = [0, 1, 1, 0, 255, 0]


@pytest.mark.parametrize("text", [TWO, NO_GREY, STATED])
@pytest.mark.parametrize(
    "make",
    [grey, black_palette, lambda values: grey(values).convert("P")],
    ids=["grey", "black palette", "palette of greys"],
)
def test_grey_masks_hold_ids(make: Make, text: str, tmp_path: Path) -> None:
    """Also those that have only the first one, and palettes that show nothing."""
    found = imported(tmp_path, text, {"first": make(ALL), "ids": make(IDS)})
    assert found == {"first": list(ALL), "ids": LABELS}


def test_an_empty_palette(tmp_path: Path) -> None:
    masks = {"first": indexed(ALL, ()), "ids": indexed(PAINT, ())}
    assert imported(tmp_path, NO_GREY, masks) == {"first": list(ALL), "ids": list(PAINT)}


@pytest.mark.parametrize("text", [NO_GREY, STATED])
def test_the_first_class_everywhere(text: str, tmp_path: Path) -> None:
    assert imported(tmp_path, text, {"first": grey(ALL)}) == {"first": list(ALL)}


def test_ids_in_three_channels(tmp_path: Path) -> None:
    masks = {name: grey(values).convert("RGB") for name, values in (("a", ALL), ("b", IDS))}
    assert imported(tmp_path, TWO, masks) == {"a": list(ALL), "b": LABELS}


def test_a_palette_that_is_only_for_show(tmp_path: Path) -> None:
    colours = ((0, 0, 0), (1, 2, 3))
    masks = {"first": indexed(ALL, colours), "ids": indexed(PAINT, colours)}
    found = imported(tmp_path, NO_GREY, masks)
    assert found == {"first": list(ALL), "ids": list(PAINT)}


def test_an_unknown_colour_in_a_palette_does_not_make_black_a_class(tmp_path: Path) -> None:
    colours = ((0, 0, 0), SOIL, (1, 2, 3))
    masks = {"unknown": indexed((0, 2, 0, 0, 0, 0), colours), "paint": indexed(PAINT, colours)}
    assert imported(tmp_path, NO_GREY, masks) == {"paint": PAINTED}
    assert "#010203 (200)" in (tmp_path / "out" / "warnings.txt").read_text()
