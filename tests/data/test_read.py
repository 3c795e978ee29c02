from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from s5mars.classes import IGNORE, MaskCoding
from s5mars.data.read import (
    image_size,
    missing_pixels,
    open_hidden,
    open_image,
    open_label,
    open_pair,
    read_image,
    read_label,
)
from s5mars.errors import DamagedFileError, UserError
from s5mars.products import open_product
from s5mars.types import Sample

from ..products.written import chunk

CODING = MaskCoding({0: 0, 3: 1, 4: 1}, frozenset({255, 9}))


@pytest.fixture
def grey() -> np.ndarray:
    return np.arange(60, dtype=np.uint8).reshape(6, 10) * 4


def labelled(tmp_path, mask: np.ndarray | Image.Image) -> Sample:
    picture = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    picture.save(tmp_path / "mask.png")
    Image.new("RGB", picture.size).save(tmp_path / "image.png")
    return Sample("image", tmp_path / "image.png", tmp_path / "mask.png")


def test_grey_is_repeated_over_three_channels(tmp_path, grey):
    Image.fromarray(grey).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (6, 10, 3)
    assert image.dtype == np.uint8
    assert (image == grey[..., None]).all()
    image[0] = 1  # a user may write into what they read


def test_alpha_is_dropped_not_blended_and_what_is_transparent_has_no_data(tmp_path, grey):
    alpha = np.full_like(grey, 7)
    alpha[2, 3:5] = 0
    colour = np.stack([grey, grey // 2, grey // 3, alpha], -1)
    Image.fromarray(colour, "RGBA").save(tmp_path / "a.png")
    Image.fromarray(np.stack([grey, alpha], -1), "LA").save(tmp_path / "b.png")
    palette = Image.fromarray((alpha == 0).astype(np.uint8))
    palette.putpalette([9, 9, 9, 200, 0, 0])
    palette.save(tmp_path / "c.png", transparency=1)
    tifffile.imwrite(tmp_path / "d.tif", colour, photometric="rgb", extrasamples=["unassalpha"])
    seen = (alpha > 0)[..., None]
    expected = {"a.png": colour[..., :3], "b.png": grey[..., None], "c.png": np.full((1, 1, 3), 9),
                "d.tif": colour[..., :3]}  # fmt: skip
    for name, values in expected.items():
        image = open_image(tmp_path / name)
        assert (np.asarray(image) == np.where(seen, values, 0)).all(), name
        assert (np.asarray(missing_pixels(image)) == (alpha == 0)).all()
        assert (open_product(tmp_path / name).valid == (alpha > 0)).all()
    Image.fromarray(colour[:2], "RGBA").save(tmp_path / "e.png")
    assert (read_image(tmp_path / "e.png") == colour[:2, :, :3]).all()
    assert missing_pixels(open_image(tmp_path / "e.png")) is None


ARROW = np.arange(1, 13, dtype=np.uint8).reshape(3, 4) * 20
TURNED = {
    1: ARROW, 2: ARROW[:, ::-1], 3: ARROW[::-1, ::-1], 4: ARROW[::-1], 5: ARROW.T,
    6: np.rot90(ARROW, -1), 7: ARROW[::-1, ::-1].T, 8: np.rot90(ARROW),
}  # fmt: skip
"""What a viewer shows of stored pixels, by their EXIF orientation (EXIF 2.32, section 4.6.4)."""


@pytest.mark.parametrize("orientation", TURNED)
def test_the_exif_orientation_turns_images_and_masks(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(ARROW).save(tmp_path / "a.png", exif=exif)
    tag = (0x0112, "H", 1, orientation, True)
    tifffile.imwrite(tmp_path / "b.tif", ARROW, photometric="minisblack", extratags=[tag])
    deep = np.repeat(ARROW[..., None].astype(np.uint16) * 257, 3, -1)
    tifffile.imwrite(tmp_path / "c.tif", deep, photometric="rgb", extratags=[tag])
    shown = TURNED[orientation]
    coding = MaskCoding({int(v): int(v) // 20 for v in ARROW.ravel()}, frozenset())
    head, _, rest = (tmp_path / "a.png").read_bytes().partition(chunk(b"eXIf", exif.tobytes()[6:]))
    pixels, end = rest[:-12], rest[-12:]
    late = head + pixels + chunk(b"eXIf", exif.tobytes()[6:]) + end
    (tmp_path / "late.png").write_bytes(late)
    for name in ("a.png", "b.tif", "c.tif", "late.png"):
        assert (read_image(tmp_path / name) == shown[..., None]).all(), name
        assert image_size(tmp_path / name) == shown.shape[::-1]
        if name != "c.tif":
            sample = Sample("a", tmp_path / name, tmp_path / name)
            assert (read_label(sample, coding) == shown // 20).all()


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("mode", ["P", "CMYK"])
def test_the_exif_orientation_turns_an_uncompressed_tiff_that_pillow_decodes(
    tmp_path, mode, orientation
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    grey = Image.fromarray(ARROW).convert(mode)
    grey.save(tmp_path / "a.tif", exif=exif)
    shown = TURNED[orientation]
    assert (np.asarray(grey.convert("RGB")) == ARROW[..., None]).all()
    assert (read_image(tmp_path / "a.tif") == shown[..., None]).all()
    assert image_size(tmp_path / "a.tif") == shown.shape[::-1]


def test_a_mask_drawn_on_the_image_as_stored_is_told_from_one_of_another_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("L", (40, 30)).save(tmp_path / "a.png")
    sample = Sample("a", tmp_path / "a.jpg", tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.jpg: 30×40.*a\.png has 40×30.*EXIF.*= 6") as raised:
        open_pair(sample, CODING)
    assert "resize" not in str(raised.value)
    Image.new("L", (30, 40)).save(tmp_path / "a.png")
    assert open_pair(sample, CODING)[0].size == (30, 40)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_the_value_that_gdal_writes_for_missing_pixels(tmp_path, kind):
    values = np.arange(1, 61).reshape(6, 10).astype(kind)
    values[2, 2:5] = 0
    text = "0" if kind != np.float32 else "-3.4028227e+38"
    if kind == np.float32:
        values[2, 2:5] = [-3.4028227e38, -3.4028235e38, np.nan]  # null, high saturation of ISIS
    tag = (42113, "s", 0, text, True)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", extratags=[tag])
    expected = np.ones((6, 10), bool)
    expected[2, 2:5] = False
    assert (open_product(tmp_path / "a.tif").valid == expected).all()
    assert (read_image(tmp_path / "a.tif")[~expected] == 0).all()
    if kind == np.uint8:
        coding = MaskCoding(dict.fromkeys(range(1, 61), 1), frozenset())
        label = read_label(Sample("a", tmp_path / "a.tif", tmp_path / "a.tif"), coding)
        assert (label == np.where(expected, 1, IGNORE)).all()


def test_what_is_transparent_in_a_mask_is_ignored(tmp_path):
    ids = np.array([[0, 3, 77], [3, 77, 0]], np.uint8)
    alpha = np.array([[255, 255, 0], [9, 0, 0]], np.uint8)
    sample = labelled(tmp_path, Image.fromarray(np.stack([ids, ids, ids, alpha], -1), "RGBA"))
    assert read_label(sample, CODING).tolist() == [[0, 1, IGNORE], [1, IGNORE, IGNORE]]


def test_a_jpeg_mask_is_refused_where_its_ids_did_not_survive(tmp_path):
    ids = np.zeros((32, 32), np.uint8)
    image = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(image)
    Image.fromarray(ids).save(tmp_path / "mask.jpg")
    sample = Sample("a", image, tmp_path / "mask.jpg")
    assert not read_label(sample, CODING).any()
    ids[5:20, 7:23] = 255
    Image.fromarray(ids).save(tmp_path / "mask.jpg")
    with pytest.raises(UserError, match=r"mask\.jpg: .* and \d+ more: lossy .*: export .* PNG"):
        read_label(sample, CODING)


def test_a_tiff_of_several_pages_is_refused_and_its_overviews_are_no_pages(tmp_path):
    page = np.full((16, 16), 3, np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(page, photometric="minisblack")
        file.write(page[::2, ::2], photometric="minisblack", subfiletype=1)
        file.write(page > 0, photometric="minisblack", subfiletype=4)
    assert image_size(tmp_path / "a.tif") == (16, 16)
    assert (read_image(tmp_path / "a.tif") == 3).all()
    tifffile.imwrite(tmp_path / "b.tif", np.stack([page] * 3), photometric="minisblack")
    for read in (read_image, lambda path: read_label(Sample("b", path, path), CODING)):
        with pytest.raises(UserError, match=r"b\.tif has 3 pages, but one is needed"):
            read(tmp_path / "b.tif")


@pytest.mark.parametrize(("top", "limit"), [(200, 255), (4095, 4095), (3000, 4095), (5000, 65535)])
def test_16_bit_grey_is_scaled_by_the_stated_rule(tmp_path, top, limit):
    values = np.linspace(0, top, 60).astype(np.uint16).reshape(6, 10)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = np.floor(values.astype(float) * 255 / limit + 0.5)
    image = read_image(tmp_path / "a.png")
    assert (image[..., 1] == expected).all()


def test_floating_point_pixels_are_stretched_between_percentiles(tmp_path):
    values = np.linspace(-1, 3, 1200, dtype=np.float32).reshape(30, 40)
    Image.fromarray(values).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")
    low, high = np.percentile(values, [0.5, 99.5])
    expected = np.floor(255 * np.clip((values - low) / (high - low), 0, 1) + 0.5)
    assert np.abs(image[..., 1] - np.maximum(expected, 3)).max() <= 1
    Image.fromarray(values * np.nan).save(tmp_path / "b.tif")
    with pytest.raises(DamagedFileError, match=r"b\.tif has no valid pixel"):
        read_image(tmp_path / "b.tif")


def test_damage_names_the_file_and_the_way_out(tmp_path, grey):
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:-900])
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    for path in (cut, text):
        with pytest.raises(DamagedFileError, match=rf"{path.name}.*--skip-bad"):
            read_image(path)
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        read_image(tmp_path / "gone.jpg")


@pytest.mark.parametrize("form", ["L", "P", "RGB", "I;16"])
def test_ids_become_class_indices_in_every_form_of_mask(tmp_path, form):
    ids = np.array([[0, 3, 4], [255, 9, 0]], np.uint8)
    if form == "P":
        mask = Image.fromarray(ids)
        mask.putpalette([v for i in range(256) for v in (255 - i, i, 7)])
    elif form == "RGB":
        mask = Image.fromarray(np.repeat(ids[..., None], 3, -1))
    else:
        mask = Image.fromarray(ids.astype(np.uint16 if form == "I;16" else np.uint8))
    sample = labelled(tmp_path, mask)
    label = read_label(sample, CODING)
    assert label.dtype == np.uint8
    assert label.tolist() == [[0, 1, 1], [IGNORE, IGNORE, 0]]
    assert open_label(sample, CODING).mode == "L"


def test_unknown_ids_are_listed_with_their_counts(tmp_path):
    sample = labelled(tmp_path, np.array([[0, 7, 7], [8, 3, 255]], np.uint8))
    with pytest.raises(ValueError, match=r"mask\.png.*7 \(2 pixels\), 8 \(1 pixel\).*ignore"):
        read_label(sample, CODING)


def test_a_colour_mask_is_refused(tmp_path):
    sample = labelled(tmp_path, np.zeros((2, 2, 3), np.uint8) + np.array([1, 2, 3], np.uint8))
    with pytest.raises(ValueError, match=r"mask\.png is a colour mask.*convert .*s5mars import"):
        read_label(sample, CODING)


def test_a_sample_without_mask_is_refused(tmp_path):
    sample = replace(labelled(tmp_path, np.zeros((2, 2), np.uint8)), mask=None)
    with pytest.raises(ValueError, match=r"image\.png has no mask"):
        read_label(sample, CODING)


def test_hidden_pixels_are_ignored(tmp_path):
    sample = labelled(tmp_path, np.zeros((2, 3), np.uint8))
    Image.fromarray(np.array([[0, 1, 0], [0, 0, 0]], np.uint8)).save(tmp_path / "rover.png")
    Image.fromarray(np.array([[0, 0, 0], [255, 0, 0]], np.uint8)).save(tmp_path / "far.png")
    sample = replace(sample, hide=(tmp_path / "rover.png", tmp_path / "far.png"))
    assert read_label(sample, CODING).tolist() == [[0, IGNORE, 0], [IGNORE, 0, 0]]
    hidden = np.asarray(open_hidden(replace(sample, mask=None), size=(3, 2)))
    assert hidden.tolist() == [[0, 255, 0], [255, 0, 0]]
    with pytest.raises(ValueError, match=r"rover\.png: the mask has 3×2 pixels.*4×2"):
        open_hidden(sample, size=(4, 2))


def test_image_and_mask_must_agree_in_size(tmp_path):
    sample = labelled(tmp_path, np.zeros((2, 3), np.uint8))
    assert open_pair(sample, CODING)[0].size == (3, 2)
    Image.new("RGB", (5, 2)).save(sample.image)
    with pytest.raises(ValueError, match=r"image\.png: 5×2.*mask\.png has 3×2: resize"):
        open_pair(sample, CODING)
