"""A crop is what "resize the whole image, then cut" gives, and image and mask stay together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from s5mars.classes import IGNORE
from s5mars.data.crops import Crop, CropSettings, coverage, draw_crop, fixed_windows
from s5mars.data.resolution import Resolution
from s5mars.randomness import generator

SIZE = 32
SLOPE = 2  # grey levels a source pixel
SETTINGS = CropSettings(size=SIZE)

widths = st.integers(5, 110)
heights = st.integers(5, 110)
seeds = st.integers(0, 10_000)


def drawn(width: int, height: int, seed: int, settings: CropSettings = SETTINGS) -> Crop:
    return draw_crop(width, height, settings=settings, rng=generator(seed, "crop"))


def ramps(width: int, height: int) -> Image.Image:
    """Red tells the column, green the row: any shift or stretch shows."""
    rows, columns = np.mgrid[:height, :width]
    blue = 128 + 60 * np.sin(columns / 15) * np.cos(rows / 15)
    return Image.fromarray(
        np.stack([SLOPE * columns, SLOPE * rows, blue.astype(int)], -1).astype(np.uint8)
    )


def resize_then_cut(source: Image.Image, crop: Crop) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The naive way: enlarge or shrink everything, then cut the square out of a larger canvas."""
    left, top, right, _ = crop.window
    factor = crop.size / (right - left)
    width, height = (max(1, round(side * factor)) for side in source.size)
    whole = np.asarray(source.resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    canvas = np.zeros((height + 2 * SIZE, width + 2 * SIZE, 3), int)
    known = np.zeros(canvas.shape[:2], bool)
    canvas[SIZE:-SIZE, SIZE:-SIZE] = whole
    known[SIZE:-SIZE, SIZE:-SIZE] = True
    x, y = SIZE + round(left * factor), SIZE + round(top * factor)
    cut = np.s_[y : y + SIZE, x : x + SIZE]
    image, inside = canvas[cut], known[cut]
    return (image[:, ::-1], inside[:, ::-1]) if crop.flip else (image, inside)


def inner(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without a seam of one pixel, where rounding may differ."""
    padded = np.pad(mask, 1)
    return padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & mask


@given(widths, heights, seeds)
def test_equals_resizing_the_whole_image(width: int, height: int, seed: int) -> None:
    crop, source = drawn(width, height, seed), ramps(width, height)
    image = crop.image(source)
    assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8

    expected, known = resize_then_cut(source, crop)

    where = inner(known) & inner(crop.inside(width, height))
    source_pixels = (crop.window[2] - crop.window[0]) / SIZE  # that one output pixel spans
    # The naive way moves by up to half an output pixel and stretches by half of one.
    difference = np.abs(image.astype(int) - expected)[where]
    assert difference.max(initial=0) <= SLOPE * 1.5 * max(source_pixels, 1) + 4 * source_pixels + 2


@given(st.integers(70, 110), st.integers(70, 110), seeds)
def test_every_pixel_comes_from_its_place(width: int, height: int, seed: int) -> None:
    crop = drawn(width, height, seed, CropSettings(size=SIZE, scale=(0.5, 2.0)))
    left, top, right, _ = crop.window
    step = (right - left) / SIZE
    x = left + (np.arange(SIZE) + 0.5) * step
    y = top + (np.arange(SIZE) + 0.5) * step
    x = x[::-1] if crop.flip else x

    image = crop.image(ramps(width, height)).astype(float)
    away = (x > 2 * step) & (x < width - 2 * step)
    np.testing.assert_allclose(image[SIZE // 2, away, 0], SLOPE * (x[away] - 0.5), atol=1.01)
    away = (y > 2 * step) & (y < height - 2 * step)
    np.testing.assert_allclose(image[away, SIZE // 2, 1], SLOPE * (y[away] - 0.5), atol=1.01)
    columns = np.broadcast_to(np.arange(width, dtype=np.uint8), (height, width))
    taken = crop.mask(Image.fromarray(np.ascontiguousarray(columns)), outside=IGNORE)
    clear = np.abs(x - np.round(x)) > 1e-6  # on the edge of two pixels either is right
    assert (taken[:, clear] == np.floor(x[clear])).all()


@given(widths, heights, seeds)
def test_masks_are_never_mixed(width: int, height: int, seed: int) -> None:
    crop = drawn(width, height, seed)
    random = np.random.default_rng(seed)
    mask = random.choice(np.array([3, 200], np.uint8), (height, width))
    taken = crop.mask(Image.fromarray(mask), outside=IGNORE)
    inside = crop.inside(width, height)
    assert set(np.unique(taken[inside])) <= {3, 200}
    assert (taken[~inside] == IGNORE).all()


@given(widths, heights, seeds)
def test_padding_is_black_and_outside(width: int, height: int, seed: int) -> None:
    crop = drawn(width, height, seed)
    inside = crop.inside(width, height)
    image = crop.image(Image.new("RGB", (width, height), (200, 100, 50)))
    assert inside.any()
    assert (image[~inside] == 0).all()
    assert (image[inside] == (200, 100, 50)).all()


@given(widths, heights, seeds)
def test_never_stretched_by_more_than_a_pixel(width: int, height: int, seed: int) -> None:
    crop = drawn(width, height, seed)
    left, top, right, bottom = crop.window
    assert np.isclose(right - left, bottom - top)
    factor = SIZE / (right - left)
    inside = crop.inside(width, height)
    for covered, side in ((inside.any(0), width), (inside.any(1), height)):
        assert abs(covered.sum() - min(SIZE, side * factor)) <= 1
        assert np.ptp(np.flatnonzero(covered)) + 1 == covered.sum()


@given(widths, heights, seeds)
def test_window_lies_in_a_large_image_and_around_a_small_one(
    width: int, height: int, seed: int
) -> None:
    crop = drawn(width, height, seed)
    left, top, right, bottom = crop.window
    assert SIZE / 2.0 - 1e-9 <= right - left <= SIZE / 0.5 + 1e-9
    for low, high, length in ((left, right, width), (top, bottom, height)):
        outer, within = (low, high), (0, length)
        if high - low > length:
            outer, within = within, outer
        assert within[0] - 1e-9 <= outer[0] and outer[1] <= within[1] + 1e-9
    if width >= 64 and height >= 64:
        assert crop.inside(width, height).all()


@given(widths, heights, seeds)
def test_flip_mirrors_everything(width: int, height: int, seed: int) -> None:
    crop, source = drawn(width, height, seed), ramps(width, height)
    plain, mirrored = (Crop(SIZE, crop.window, flip) for flip in (False, True))
    np.testing.assert_array_equal(mirrored.image(source), plain.image(source)[:, ::-1])
    mask = source.getchannel(0)
    np.testing.assert_array_equal(
        mirrored.mask(mask, outside=IGNORE), plain.mask(mask, outside=IGNORE)[:, ::-1]
    )
    np.testing.assert_array_equal(
        mirrored.inside(width, height), plain.inside(width, height)[:, ::-1]
    )


def test_flip_and_factor_follow_the_settings() -> None:
    for probability, low, high in ((0.0, 0, 0), (1.0, 400, 400), (0.5, 160, 240)):
        settings = CropSettings(size=SIZE, flip=probability)
        flips = sum(drawn(80, 80, seed, settings).flip for seed in range(400))
        assert low <= flips <= high
    fixed = drawn(SIZE, SIZE, 0, CropSettings(size=SIZE, scale=(1.0, 1.0), flip=0.0))
    assert fixed.window == (0, 0, SIZE, SIZE)
    source = ramps(SIZE, SIZE)
    np.testing.assert_array_equal(fixed.image(source), np.asarray(source))


@given(st.sampled_from([(1, 300), (300, 1), (1, 1), (2, 3)]), seeds)
def test_very_narrow_image_keeps_a_pixel(size: tuple[int, int], seed: int) -> None:
    crop = drawn(*size, seed)
    image = crop.image(Image.new("RGB", size, (9, 9, 9)))
    inside = crop.inside(*size)
    assert inside.any()
    assert (image[inside] == 9).all() and (image[~inside] == 0).all()


def test_fixed_crops_are_few_and_cover_the_image() -> None:
    for width, height in ((60, 60), (100, 40), (40, 130)):
        windows = fixed_windows(width, height)
        side, length = min(width, height), max(width, height)
        assert len(windows) == -(-length // side)
        along = 0 if width >= height else 1
        assert windows[0][along] == 0 and windows[-1][along + 2] == length
        assert all(b[along] <= a[along + 2] for a, b in itertools.pairwise(windows))
        drawn = {
            (crop.window, crop.flip)
            for seed in range(60)
            for crop in [
                draw_crop(
                    width, height, settings=CropSettings(size=32, fixed=True),
                    rng=np.random.default_rng(seed),
                )
            ]
        }  # fmt: skip
        assert drawn == {(window, flip) for window in windows for flip in (False, True)}


@given(widths, heights, seeds, st.data())
def test_a_crop_around_a_pixel_holds_it(
    width: int, height: int, seed: int, data: st.DataObject
) -> None:
    pixel = (data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1)))
    free = drawn(width, height, seed)
    crop = draw_crop(width, height, settings=SETTINGS, rng=generator(seed, "crop"), around=pixel)
    left, top, right, bottom = crop.window
    assert left <= pixel[0] and pixel[0] + 1 <= right + 1e-9
    assert top <= pixel[1] and pixel[1] + 1 <= bottom + 1e-9
    # The factor, the flip and the room to move in are those of any other crop.
    assert right - left == pytest.approx(free.window[2] - free.window[0])
    assert crop.flip == free.flip
    assert min(0, width - (right - left)) - 1e-9 <= left <= max(0, width - (right - left)) + 1e-9


def test_a_pixel_stands_anywhere_in_its_crops() -> None:
    settings = CropSettings(size=SIZE, scale=(1.0, 1.0))
    lefts = [
        draw_crop(
            400, 400, settings=settings, rng=generator(seed, "crop"), around=(200, 200)
        ).window[0]
        for seed in range(400)
    ]
    assert min(lefts) < 200 - SIZE + 3 and max(lefts) > 197
    corner = draw_crop(
        400, 400, settings=settings, rng=generator(0, "crop"), around=(0, 399)
    ).window
    assert corner[0] == 0 and corner[3] == 400


def test_a_fixed_crop_around_a_pixel_is_one_that_shows_it() -> None:
    settings = CropSettings(size=32, fixed=True)
    for column in range(100):
        window = draw_crop(
            100, 40, settings=settings, rng=generator(column, "crop"), around=(column, 3)
        ).window
        assert window in fixed_windows(100, 40) and window[0] <= column < window[2]


@pytest.mark.parametrize(
    ("width", "height", "settings"),
    [
        (40, 24, CropSettings(size=16)),
        (20, 30, CropSettings(size=32, scale=(0.5, 1.0))),  # crops larger than the image
        (40, 24, CropSettings(size=16, resolution=Resolution(divisor=2))),
        (40, 16, CropSettings(size=32, fixed=True)),
    ],
)
def test_coverage_is_how_often_crops_show_a_pixel(
    width: int, height: int, settings: CropSettings
) -> None:
    counted, draws = np.zeros(256), 4000
    # Blocks of 4×4 pixels, an id each: what crops show of each is counted.
    ids = (np.arange(height)[:, None] // 4) * (width // 4) + np.arange(width) // 4
    blocks = Image.fromarray(ids.astype(np.uint8))
    for seed in range(draws):
        crop = drawn(width, height, seed, settings)
        counted += np.bincount(crop.mask(blocks, outside=IGNORE).ravel(), minlength=256)
    rows, columns = coverage(width, height, settings)
    weights = (rows @ columns).ravel()
    expected = np.bincount(ids.ravel(), weights, minlength=256)
    shown = slice(0, ids.max() + 1)
    largest = expected[shown].max()
    np.testing.assert_allclose(counted[shown] / draws, expected[shown], atol=0.08 * largest)


def test_a_crop_at_half_resolution_is_one_of_the_half_sized_image() -> None:
    half = CropSettings(size=SIZE, resolution=Resolution(divisor=2))
    for seed in range(20):
        small, whole = drawn(60, 44, seed), drawn(120, 88, seed, half)
        assert np.allclose(np.array(small.window) * 2, whole.window)
        assert small.flip == whole.flip


def test_tiles_cover_the_image_at_its_resolution_and_are_few() -> None:
    settings = CropSettings(size=40, tiles=True, resolution=Resolution.parse("1/2"))
    rng = np.random.default_rng(0)
    drawn = {draw_crop(200, 100, settings=settings, rng=rng) for _ in range(200)}
    windows = sorted({crop.window for crop in drawn})
    assert len(windows) == 3 * 2 and len(drawn) == 12  # and their flips
    assert all(right - left == bottom - top == 80 for left, top, right, bottom in windows)
    assert sorted({left for left, *_ in windows}) == [0.0, 60.0, 120.0]
    assert sorted({top for _, top, *_ in windows}) == [0.0, 20.0]
    assert {crop.size for crop in drawn} == {40}
    # A pixel that must be inside is.
    for _ in range(20):
        left, top, right, bottom = draw_crop(
            200, 100, settings=settings, rng=rng, around=(199, 0)
        ).window
        assert left <= 199 < right and top <= 0 < bottom
    # What crops show of the image on average: each pixel at least once in six windows.
    rows, columns = coverage(200, 100, settings)
    shown = rows @ columns
    assert shown.min() == pytest.approx(0.25 / 6) and shown.max() == pytest.approx(4 * 0.25 / 6)
    assert shown.sum() == pytest.approx(40 * 40)


def test_a_tile_larger_than_the_image_shows_all_of_it_once() -> None:
    assert fixed_windows(30, 20, side=40.0) == [(0.0, 0.0, 40.0, 40.0)]
    assert fixed_windows(40, 20, side=40.0) == [(0.0, 0.0, 40.0, 40.0)]
    assert len(fixed_windows(41, 20, side=40.0)) == 2
