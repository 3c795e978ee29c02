"""Pictures of class maps: exact pixels where they are known, and a legend that is there."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from s5mars.classes import IGNORE, S5MARS, Class, Taxonomy
from s5mars.predict.overlay import LEGEND_BACKGROUND, indexed_png, overlay


def picture(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (height, width, 3), np.uint8)
    labels = generator.integers(0, len(S5MARS), (height, width), np.uint8)
    labels[0, 0] = IGNORE
    return image, labels


def test_indexed_png_keeps_indices_and_shows_the_taxonomys_colours() -> None:
    _, labels = picture(10, 12)
    file = io.BytesIO()
    indexed_png(labels, S5MARS).save(file, "PNG")
    with Image.open(file) as read:
        assert read.mode == "P"
        assert np.array_equal(np.asarray(read), labels)
        colours = np.asarray(read.convert("RGB"))
    assert tuple(colours[0, 0]) == (0, 0, 0)
    assert tuple(colours[3, 4]) == S5MARS.classes[labels[3, 4]].colour


def test_overlay_mixes_by_opacity_and_leaves_ignored_pixels_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("s5mars.predict.overlay.OUTLINE_OPACITY", 0.0)
    image, labels = picture(20, 30)
    mixed = np.asarray(overlay(image, labels, S5MARS, opacity=0.25, legend=False)).astype(float)
    assert mixed.shape == image.shape
    colours = np.array([c.colour for c in S5MARS.classes])
    expected = 0.75 * image[1:] + 0.25 * colours[labels[1:]]
    assert np.abs(mixed[1:] - expected).max() <= 1
    assert np.array_equal(mixed[0, 0], image[0, 0])


def test_opacity_zero_is_the_image_and_one_is_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s5mars.predict.overlay.OUTLINE_OPACITY", 0.0)
    image, labels = picture(20, 30)
    assert np.array_equal(overlay(image, labels, S5MARS, opacity=0, legend=False), image)
    full = np.asarray(overlay(image, labels, S5MARS, opacity=1, legend=False))
    colours = np.asarray(indexed_png(labels, S5MARS).convert("RGB"))
    assert np.array_equal(full[1:], colours[1:])


def test_regions_have_an_outline_that_differs_from_their_colour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taxonomy = Taxonomy(
        "two",
        (Class("white", (255, 255, 255)), Class("dark", (60, 20, 10)), Class("no", (0, 9, 0))),
    )
    labels = np.full((60, 1700), IGNORE, np.uint8)  # lines of two pixels
    labels[20:40, 100:800] = 0
    labels[20:40, 800:1500] = 1
    image = np.full((60, 1700, 3), 250, np.uint8)
    drawn = np.asarray(overlay(image, labels, taxonomy, legend=False)).astype(int)
    assert (drawn[labels == IGNORE] == 250).all()  # the line is inside of the region
    for row in (20, 21, 38, 39):
        assert (drawn[row, 110:790] < 150).all()  # dark around white
        assert (drawn[row, 810:1490] > 180).all()  # bright around dark
    assert (drawn[22:38, 110:790] > 240).all() and (drawn[22:38, 810:1490] < 160).all()
    # Strips meet without a seam.
    monkeypatch.setattr("s5mars.predict.overlay.STRIP", 7)
    assert (np.asarray(overlay(image, labels, taxonomy, legend=False)) == drawn).all()


def test_the_legend_lists_only_classes_that_are_there() -> None:
    image, labels = picture(64, 400)
    labels[:] = 3
    labels[0] = 5
    strip = np.asarray(overlay(image, labels, S5MARS))[64:].reshape(-1, 3)
    shown = [c.name for c in S5MARS.classes if (strip == c.colour).all(-1).sum() >= 40]
    assert shown == [S5MARS.classes[3].name, S5MARS.classes[5].name]


def test_the_legend_says_of_no_class_that_is_there_that_it_has_0_percent() -> None:
    image, labels = picture(20, 20)
    strips = []
    for pixels in (1, 2):  # 0.25 % and 0.5 %, which is rounded to 0
        labels[:] = 3
        labels[0, :pixels] = 5
        strips.append(np.asarray(overlay(image, labels, S5MARS))[20:])
    assert np.array_equal(*strips)


@pytest.mark.parametrize("shape", [(8, 8), (64, 40), (300, 400), (100, 2000), (900, 60)])
def test_legend_has_every_colour_and_text_whatever_the_size(shape: tuple[int, int]) -> None:
    image, labels = picture(*shape)
    plain = overlay(image, labels, S5MARS, legend=False)
    result = overlay(image, labels, S5MARS)
    assert result.width >= shape[1] and result.height > shape[0]
    pixels = np.asarray(result)
    assert np.array_equal(pixels[: shape[0], : shape[1]], plain)
    strip = pixels[shape[0] :]
    for entry in S5MARS.classes:
        assert (strip == entry.colour).all(-1).sum() >= 40, entry.name
    bright = (strip.astype(int) > 200).all(-1)
    letters = bright & ~(strip == S5MARS.classes[6].colour).all(-1)
    assert letters.sum() > 20 * len(S5MARS)
    edge = strip[:, -1].reshape(-1, 3)
    assert (edge == LEGEND_BACKGROUND).all()  # no text is cut off at the right


def test_what_does_not_fit_is_refused() -> None:
    image, labels = picture(10, 10)
    with pytest.raises(ValueError, match="opacity"):
        overlay(image, labels, S5MARS, opacity=1.5)
    with pytest.raises(ValueError, match=r"\(10, 10, 3\)"):
        overlay(image[:5], labels, S5MARS)
    labels[2, 2] = 9
    with pytest.raises(ValueError, match=r"\[9\]: 's5mars' has 9 classes"):
        indexed_png(labels, S5MARS)
    with pytest.raises(ValueError, match="int64"):
        indexed_png(labels.astype(np.int64), S5MARS)


def test_inputs_are_not_changed() -> None:
    image, labels = picture(10, 10)
    before = image.copy(), labels.copy()
    overlay(image, labels, S5MARS)
    assert np.array_equal(image, before[0]) and np.array_equal(labels, before[1])
