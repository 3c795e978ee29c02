"""One reader for every format: the right pixels, the right words, and clear refusals."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from s5mars.data.read import image_size, open_image, read_image
from s5mars.errors import UserError
from s5mars.products import DamagedFileError, open_product, product_files
from s5mars.products.decode import decode_mask
from s5mars.products.raster import valid_values

from .test_bayer import mosaic_of
from .written import MASTCAM, NAVCAM, chunk, grey_png, pds3, pds4

RAMP = np.linspace(1, 4095, 20 * 30).astype(np.uint16).reshape(20, 30)
EXPECTED = np.floor(RAMP * 255.0 / 4095 + 0.5)
M2020 = "NLF_0670_0726421423_362ECM_N0320604NCAM08111_01_095J01"
TWELVE_BITS = "SAMPLE_BIT_MASK = 2#0000111111111111#"
COLOUR = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)

pytest.importorskip("pdr")


@pytest.mark.parametrize("detached", [False, True])
def test_pds3_with_its_label_inside_or_beside_it(tmp_path: Path, detached: bool):
    path = pds3(
        tmp_path / f"{NAVCAM}.IMG", RAMP.astype(">i2"), detached=detached, image=TWELVE_BITS,
        declared=">i2",
        more=f'PRODUCT_ID = "{NAVCAM}"\nPLANET_DAY_NUMBER = 1343\n'
        'SPACECRAFT_CLOCK_START_COUNT = "1/516721703-665"\nSTART_TIME = 2016-05-17T02:09:14.164',
    )  # fmt: skip
    product = open_product(path)
    assert product.image.dtype == np.uint8
    assert (product.image == EXPECTED[..., None]).all()
    assert product.valid is None
    assert product.row() == {
        "mission": "MSL", "rover": "Curiosity", "camera": "Navcam Left", "sol": 1343,
        "product_id": NAVCAM, "utc": "2016-05-17T02:09:14.164", "sclk": 516721703.665,
        "sources": "mission: label; rover: label; camera: label; sol: label; product_id: label; "
        "utc: label; sclk: label",
        "stretch": "linear: round(255 * clip((v - 0) / 4095, 0, 1))", "mosaic": None,
    }  # fmt: skip
    if detached:
        assert (open_product(path.with_suffix(".LBL")).image == product.image).all()
    assert (read_image(path) == product.image).all()
    assert image_size(path) == (30, 20)


def test_a_field_that_the_label_lacks_comes_from_the_file_name(tmp_path: Path):
    product = open_product(pds3(tmp_path / f"{NAVCAM}.IMG", RAMP.astype(">u2"), declared=">u2"))
    sources = product.info.sources
    assert (sources["mission"], sources["product_id"], sources["sol"]) == (
        "label", "file name", "clock",
    )  # fmt: skip
    assert product.info.sol == 1343


def test_unk_in_a_label_is_not_known(tmp_path: Path):
    path = pds3(tmp_path / "x.IMG", RAMP.astype(">u2"), declared=">u2",
                more='PRODUCT_ID = "UNK"\nSTART_TIME = "N/A"\nINSTRUMENT_NAME = "CAM"')  # fmt: skip
    info = open_product(path).info
    assert (info.product_id, info.utc, info.sol) == (None, None, None)
    assert info.camera == "CAM"


@pytest.mark.parametrize("digits", [9, 20, 5000])
def test_an_absurd_sol_is_not_known(tmp_path: Path, digits: int):
    """The index has 64 bits for it, and failed for the whole folder."""
    number = "9" * digits
    if digits < 5000:  # for the parser of pdr
        more = f'PLANET_DAY_NUMBER = {number}\nSPACECRAFT_CLOCK_START_COUNT = "{"9" * 400}"'
        info = open_product(
            pds3(tmp_path / "a.IMG", RAMP.astype(">u2"), declared=">u2", more=more)
        ).info
        assert (info.sol, info.sclk) == (None, None)
    path = pds4(
        tmp_path / "b.xml", RAMP.astype(">u2"), kind="UnsignedMSB2",
        more=f"<x:start_sol_number xmlns:x='urn:x'>{number}</x:start_sol_number>",
    )  # fmt: skip
    assert open_product(path).info.sol is None


def test_missing_pixels_are_not_valid(tmp_path: Path):
    values = RAMP.copy()
    values[3:5] = 0
    path = pds3(tmp_path / "a.IMG", values.astype(">u2"), declared=">u2",
                image=f"{TWELVE_BITS}\nMISSING_CONSTANT = 0")  # fmt: skip
    product = open_product(path)
    assert product.valid is not None
    assert (~product.valid == (values == 0)).all()


@pytest.mark.parametrize("bits", range(0xFF7FFFFB, 0xFF800000))
def test_special_pixels_of_isis_are_not_valid(tmp_path: Path, bits: int):
    values = np.linspace(0.1, 0.3, 600, dtype=np.float32).reshape(20, 30)
    values[3:5] = np.array(bits, np.uint32).view(np.float32)
    pds3(tmp_path / "a.IMG", values.astype("<f4"))
    product = open_product(tmp_path / "a.IMG")
    assert product.valid is not None
    assert not product.valid[3:5].any() and product.valid[5:].all()
    smallest = np.full((2, 2), 0xFF7FFFFA, np.uint32).view(np.float32)
    assert valid_values(smallest) is None


def test_a_missing_constant_of_floats_may_be_its_bits(tmp_path: Path):
    values = np.linspace(0.1, 0.3, 600, dtype=np.float32).reshape(20, 30)
    values[3:5] = -1e32  # 0xF49DC5AE
    pds3(tmp_path / "a.IMG", values.astype("<f4"), image="MISSING_CONSTANT = 16#F49DC5AE#")
    product = open_product(tmp_path / "a.IMG")
    assert product.valid is not None and (~product.valid == (values < 0)).all()


def test_a_missing_constant_may_be_stated_for_each_band(tmp_path: Path):
    values = np.full((3, 20, 30), 500, ">i2")
    values[:, 3:5], values[0, 9, 9] = 0, 0
    path = pds3(tmp_path / "a.IMG", values, image="MISSING_CONSTANT = (0.0, 0.0, 0.0)")
    product = open_product(path)
    assert product.valid is not None
    assert not product.valid[3:5].any() and product.valid.sum() == 18 * 30


def test_three_bands(tmp_path: Path):
    path = pds3(tmp_path / "a.IMG", np.ascontiguousarray(COLOUR.transpose(2, 0, 1)))
    product = open_product(path)
    assert (product.image == COLOUR).all()
    assert product.stretch.rule == "none"


def test_a_mosaic_by_the_name_and_by_the_label(tmp_path: Path):
    colour = np.tile(np.array([200, 120, 30], np.uint8), (20, 30, 1))
    by_name = open_product(pds3(tmp_path / f"{MASTCAM}.IMG", mosaic_of(colour, "RGGB")))
    by_label = open_product(
        pds3(tmp_path / "x.IMG", mosaic_of(colour, "GBRG"),
             more='BAYER_METHOD = "RAW_BAYER"\nCFA_TYPE = "BAYER_GBRG"')
    )  # fmt: skip
    denied = open_product(
        pds3(tmp_path / "y" / f"{MASTCAM}.IMG", mosaic_of(colour, "RGGB"),
             more='BAYER_METHOD = "MALVAR"')
    )  # fmt: skip
    assert (by_name.image == colour).all()
    assert (by_label.image == colour).all()
    assert (by_name.mosaic, by_label.mosaic, denied.mosaic) == ("RGGB", "GBRG", None)
    assert (denied.image == mosaic_of(colour, "RGGB")[..., None]).all()


@pytest.mark.parametrize("grey_as_rgb", [False, True])
def test_a_mosaic_of_the_raw_feed(tmp_path: Path, grey_as_rgb: bool):
    colour = np.tile(np.array([200, 120, 30], np.uint8), (20, 30, 1))
    mosaic = mosaic_of(colour, "RGGB")
    path = tmp_path / f"{M2020.replace('NLF', 'NLE')}.png"
    Image.fromarray(np.repeat(mosaic[..., None], 3, 2) if grey_as_rgb else mosaic).save(path)
    assert (open_product(path).image == colour).all()
    assert (np.asarray(open_image(path)) == colour).all()
    coloured = tmp_path / f"{M2020.replace('NLF', 'ZL0')}.png"
    Image.fromarray(COLOUR).save(coloured)
    assert (open_product(coloured).image == COLOUR).all()
    assert open_product(coloured).mosaic is None


def test_pds4(tmp_path: Path):
    path = pds4(
        tmp_path / f"{M2020}.xml", RAMP.astype(">u2"), kind="UnsignedMSB2",
        more="<x:start_sol_number xmlns:x='urn:x'>670</x:start_sol_number>"
        "<x:sample_bit_mask xmlns:x='urn:x'>2#0000111111111111</x:sample_bit_mask>",
    )  # fmt: skip
    product = open_product(path)
    assert (product.image == EXPECTED[..., None]).all()
    info = product.info
    assert (info.mission, info.rover, info.sol) == ("M2020", "Perseverance", 670)
    assert (info.camera, info.utc) == ("Navcam Left", "2023-01-08T01:02:03.4Z")
    assert set(info.sources.values()) == {"label"}
    assert info.product_id == M2020
    assert (open_product(path.with_suffix(".IMG")).image == product.image).all()


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiff_of_8_and_16_bits_tiled_or_not(
    tmp_path: Path, tile: tuple[int, int] | None, deep: bool, channels: int
):
    values = RAMP if deep else COLOUR[..., 0]
    if channels == 3:
        values = np.stack([values, values // 2, values // 3], -1)
    kind = "rgb" if channels == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", values, tile=tile, photometric=kind)
    expected = np.floor(values * 255.0 / 4095 + 0.5) if deep else values
    expected = expected if channels == 3 else expected[..., None]
    assert (open_product(tmp_path / "a.tif").image == expected).all()
    assert (read_image(tmp_path / "a.tif") == expected).all()


def test_png_of_16_bits_in_colour_keeps_its_low_bits(tmp_path: Path):
    values = np.stack([RAMP, RAMP // 2, RAMP // 3], -1)
    path = tmp_path / "a.png"
    path.write_bytes(_png(values))
    assert (open_product(path).image == np.floor(values * 255.0 / 4095 + 0.5)).all()
    assert (read_image(path) == open_product(path).image).all()


def _deep(values: np.ndarray) -> np.ndarray:
    return np.floor(values * 255.0 / 65535 + 0.5)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_png_of_16_bits_of_any_channels(tmp_path: Path, channels: int):
    random = np.random.default_rng(0)
    values = random.integers(1, 65536, (20, 30, channels)).astype(np.uint16)
    if channels in (2, 4):
        values[4, 5:9, -1] = 0
    (tmp_path / "a.png").write_bytes(_png(values, colour={2: 4, 3: 2, 4: 6}[channels]))
    product = open_product(tmp_path / "a.png")
    colours = values[..., :1] if channels == 2 else values[..., :3]
    opaque = values[..., -1:] > 0 if channels != 3 else np.ones((20, 30, 1), bool)
    assert (product.image == np.where(opaque, _deep(colours), 0)).all()
    assert (read_image(tmp_path / "a.png") == product.image).all()


@pytest.mark.filterwarnings("error")
def test_a_palette_may_have_an_alpha_for_each_entry(tmp_path: Path):
    ids = np.arange(30, dtype=np.uint8).reshape(5, 6) % 4
    indexed = Image.fromarray(ids, "P")
    indexed.putpalette([9, 9, 9, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    indexed.save(tmp_path / "a.png", transparency=bytes([0, 255, 255, 128]))
    product = open_product(tmp_path / "a.png")
    assert (product.valid == (ids != 0)).all() and (product.image[ids == 1] == (255, 0, 0)).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_grey_png_of_few_bits_is_white_as_an_image_and_has_its_ids_as_a_mask(
    tmp_path: Path, bits: int
):
    ids = np.arange(30, dtype=np.uint8).reshape(5, 6) % 2**bits
    path = grey_png(tmp_path / "a.png", ids, bits=bits)
    assert (decode_mask(path).ids == ids).all()
    assert (open_product(path).image == ids[..., None] * (255 // (2**bits - 1))).all()
    grey_png(path, ids, bits=bits, transparent=1)
    assert (decode_mask(path).valid == (ids != 1)).all()
    assert (open_product(path).valid == (ids != 1)).all()


def test_ids_of_tiff_masks_that_pillow_decodes(tmp_path: Path):
    """Those of LZW and CCITT, for which tifffile needs another package."""
    ids = np.arange(30, dtype=np.uint8).reshape(5, 6) % 4
    indexed = Image.fromarray(ids, "P")
    indexed.putpalette([0, 0, 9, 9, 9, 9, 200, 0, 0, 0, 200, 0])
    indexed.save(tmp_path / "indexed.tif", compression="tiff_lzw")
    mask = decode_mask(tmp_path / "indexed.tif")
    assert (mask.ids == ids).all() and (mask.colours == np.asarray(indexed.convert("RGB"))).all()
    Image.fromarray(ids > 1).save(tmp_path / "bilevel.tif", compression="group4")
    assert (decode_mask(tmp_path / "bilevel.tif").ids == (ids > 1)).all()
    tifffile.imwrite(tmp_path / "few.tif", np.packbits(ids[:, :4] & 1, axis=1))
    with tifffile.TiffFile(tmp_path / "few.tif", mode="r+b") as file:
        for tag, value in (("BitsPerSample", 2), ("ImageWidth", 4)):
            file.pages.first.tags[tag].overwrite(value)
    few = np.packbits(ids[:, :4] & 1, axis=1) >> np.array([6, 4, 2, 0]) & 3
    assert (decode_mask(tmp_path / "few.tif").ids == few).all()


@pytest.mark.parametrize("kind", ["rgb", "palette"])  # decoded by tifffile, and by Pillow
def test_an_overview_of_a_tiff_may_come_first(tmp_path: Path, kind: str):
    values, options = COLOUR, {}
    if kind == "palette":
        values, options = COLOUR[..., 0], {"colormap": np.full((3, 256), 0xFFFF, np.uint16)}
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(values[::2, ::2], photometric=kind, subfiletype=1, **options)
        file.write(values, photometric=kind, **options)
    assert open_product(tmp_path / "a.tif").image.shape == COLOUR.shape
    assert image_size(tmp_path / "a.tif") == (30, 20)
    assert (decode_mask(tmp_path / "a.tif").ids == values).all()


def test_a_compressed_tiff_of_more_than_8_bits_is_exact_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Pillow drops the low byte of colours of 16 bits, and does not invert MINISWHITE."""
    path = tmp_path / "a.tif"
    floats = RAMP.astype(np.float32)
    tifffile.imwrite(tmp_path / "floats.tif", floats)
    for values, expected in ((RAMP, EXPECTED), (floats, None)):
        Image.fromarray(values).save(path, compression="tiff_lzw")
        if expected is None:
            expected = open_product(tmp_path / "floats.tif").image[..., 0]
        assert (open_product(path).image == expected[..., None]).all()

    def without(*_: object, **__: object) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", without)
    for values, kind, said in (
        (np.stack([RAMP] * 3, -1), "rgb", "3 channels of 16 bits with NONE"),
        (RAMP, "miniswhite", "1 channel of 16 bits with NONE"),
    ):
        tifffile.imwrite(path, values, photometric=kind)
        with pytest.raises(UserError, match=rf"{said}.: run `pip install imagecodecs`, or write"):
            open_product(path)
    tifffile.imwrite(path, COLOUR, photometric="rgb")
    assert (open_product(path).image == COLOUR).all()


@pytest.mark.parametrize("damage", ["stream", "short", "bytes"])
def test_a_damaged_png_of_16_bits_is_an_error_and_no_crash(tmp_path: Path, damage: str):
    """libpng jumped out of torchvision's frame over it, and the process was gone."""
    whole = _png(np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(np.uint16))
    start = whole.index(b"IDAT") + 4
    body = {
        "stream": whole[:start] + b"\0" * 40 + whole[start + 40 :],
        "short": whole[: start + 60],
        "bytes": whole[: start + 300] + bytes(99) + whole[start + 399 :],
    }[damage]
    (tmp_path / "a.png").write_bytes(body)
    code = (
        "import sys; from s5mars.products import open_product\n"
        "try: open_product(sys.argv[1])\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.png"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert damage == "bytes" or "a.png: damaged image" in done.stdout


def test_jpeg_is_what_pillow_decodes(tmp_path: Path):
    path = tmp_path / f"{M2020}.jpg"
    Image.fromarray(COLOUR).save(path)
    product = open_product(path)
    assert (product.image == np.asarray(Image.open(path))).all()
    assert (product.info.sol, product.stretch.rule) == (670, "none")
    Image.fromarray(COLOUR[..., 0]).save(tmp_path / "grey.jpg")
    assert open_product(tmp_path / "grey.jpg").image.shape == (20, 30, 3)


def test_nan_in_part_is_not_valid_and_nan_throughout_is_refused(tmp_path: Path):
    values = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    values[:4] = np.nan
    pds3(tmp_path / "part.IMG", values.astype("<f4"))
    tifffile.imwrite(tmp_path / "part.tif", values)
    for name in ("part.IMG", "part.tif"):
        product = open_product(tmp_path / name)
        assert product.valid is not None
        assert not product.valid[:4].any() and product.valid[4:].all()
        assert product.image[:4].max() == 0
        assert product.stretch.rule == "percentile"
    pds3(tmp_path / "all.IMG", np.full((20, 30), np.nan, "<f4"))
    with pytest.raises(DamagedFileError, match=r"all\.IMG has no valid pixel.*NaN"):
        open_product(tmp_path / "all.IMG")


def test_half_floats_are_read_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder):
    values = np.linspace(0, 1, 600, dtype=np.float16).reshape(20, 30)
    values[:4] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values)
    valid = open_product(tmp_path / "a.tif").valid
    assert valid is not None and not valid[:4].any() and valid[4:].all()
    assert not recwarn.list


# what is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif", ".IMG", ".LBL", ".xml"])
def test_an_empty_file(tmp_path: Path, ending: str):
    path = tmp_path / f"a{ending}"
    path.touch()
    with pytest.raises(DamagedFileError, match=rf"a{ending} is empty \(0 bytes\): replace"):
        open_product(path)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif", ".IMG", ".LBL", ".xml"])
def test_what_is_no_image(tmp_path: Path, ending: str):
    path = tmp_path / f"a{ending}"
    path.write_text("nothing of the kind\n" * 50)
    with pytest.raises(ValueError, match=rf"a{ending} is ") as caught:
        open_product(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=rf"b{ending}: no such file"):
        open_product(tmp_path / f"b{ending}")


def test_truncated_files(tmp_path: Path):
    pds3(tmp_path / "a.IMG", RAMP.astype(">u2"), declared=">u2")
    pds3(tmp_path / "b.IMG", RAMP.astype(">u2"), declared=">u2", detached=True)
    pds4(tmp_path / "c.xml", RAMP.astype(">u2"), kind="UnsignedMSB2")
    tifffile.imwrite(tmp_path / "d.tif", np.random.default_rng(0).integers(0, 9, (64, 64)))
    Image.fromarray(COLOUR).save(tmp_path / "e.png")
    for name in ("a.IMG", "b.IMG", "c.IMG", "d.tif", "e.png"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(
            DamagedFileError, match=rf"{name}(: damaged| has .* declares)"
        ) as caught:
            open_product(path)
        assert "\n" not in str(caught.value)


def _png(values: np.ndarray, *, declared: tuple[int, int] | None = None, colour: int = 2) -> bytes:
    """16 bits of a PNG colour type (RGB), which Pillow cannot write."""
    width, height = declared or values.shape[1::-1]

    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )  # fmt: skip


def _huge_tiff(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8))
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["ImageWidth"].overwrite(100_000)
        file.pages.first.tags["ImageLength"].overwrite(100_000)


def test_a_huge_declared_size_is_refused_without_the_memory(tmp_path: Path):
    side = 100_000
    (tmp_path / "a.png").write_bytes(_png(np.zeros((2, 2, 3), np.uint16), declared=(side, side)))
    _huge_tiff(tmp_path / "b.tif")
    pds3(tmp_path / "c.IMG", np.zeros((2, 40_000), np.uint8), lines=side)
    pds4(tmp_path / "d.xml", np.zeros((2, 40_000), np.uint8), kind="UnsignedByte", lines=side)
    bitmap = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, side, side, 1, 24,
                         0, 0, 0, 0, 0, 0)  # fmt: skip
    (tmp_path / "e.bmp").write_bytes(bitmap + bytes(100))
    tracemalloc.start()
    for name in ("a.png", "b.tif", "c.IMG", "d.xml", "e.bmp"):
        for read in (open_product, open_image):
            with pytest.raises(
                DamagedFileError, match=rf"{name} declares .*pixels.*split the image"
            ):
                read(tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e7


def test_a_small_file_of_many_bytes_is_refused_without_the_memory(tmp_path: Path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((16, 16, 3)), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages.first.tags["ImageWidth"].overwrite(13312)
        file.pages.first.tags["ImageLength"].overwrite(13312)
    pds3(tmp_path / "b.IMG", np.zeros((2, 200), ">u1"))
    text = (tmp_path / "b.IMG").read_bytes().replace(b"BANDS = 1", b"BANDS = 30")
    (tmp_path / "b.IMG").write_bytes(text)
    pds3(tmp_path / "c.IMG", np.zeros((2, 13312), "<f4"), lines=13312)
    text = (tmp_path / "c.IMG").read_bytes().replace(b"BANDS = 1", b"BANDS = 3")
    (tmp_path / "c.IMG").write_bytes(text)
    for name in ("b.IMG", "c.IMG"):
        os.truncate(tmp_path / name, 9 << 30)  # sparse: no byte of it is on the disk
    tracemalloc.start()
    for name, said in (
        ("a.tif", "13312×13312 pixels of 24 bytes, more than the limit of 1,073,741,824 bytes"),
        ("b.IMG", "image has 30 channels, not 1 or 3"),
        ("c.IMG", "13312×13312 pixels of 12 bytes, more than the limit of 1,073,741,824 bytes"),
    ):
        with pytest.raises(UserError, match=rf"{name}.* {said}"):
            open_product(tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e7


def test_a_strip_that_expands_beyond_its_declared_size_is_refused_without_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("s5mars.products.segments._HARMLESS", 0)
    for compression in ("zlib", "lzma"):
        path = tmp_path / f"{compression}.tif"
        shape = {"rowsperstrip": 4000, "compression": compression}
        tifffile.imwrite(path, np.zeros((4000, 4000), np.uint8), **shape)
        assert open_product(path).image.shape == (4000, 4000, 3)
        with tifffile.TiffFile(path, mode="r+b") as file:
            for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
                file.pages.first.tags[tag].overwrite(16)
        tracemalloc.start()
        said = rf"{compression}\.tif: [\d,]+ compressed bytes expand to more than the declared 256"
        with pytest.raises(DamagedFileError, match=said):
            open_product(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 12e6  # of 16 MB decompressed; LZMA takes 8 MB by itself
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((16, 16), "u1"), tile=(16, 16))
    with tifffile.TiffFile(tmp_path / "c.tif", mode="r+b") as file:
        for tag in ("TileWidth", "TileLength"):
            file.pages.first.tags[tag].overwrite(60_000)
    with pytest.raises(DamagedFileError, match=r"c\.tif: its tile declares 60000×60000 pixels"):
        open_product(tmp_path / "c.tif")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.IMG", "a.LBL", "a.xml"])
def test_a_pipe_is_refused_at_once(tmp_path: Path, name: str):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DamagedFileError, match=rf"{name} is a named pipe, not a regular file"):
        open_product(tmp_path / name)
    assert product_files([tmp_path / name]) == [tmp_path / name]


def test_whatever_is_written_over_a_file_is_an_error_that_names_it(tmp_path: Path):
    """A few hundred damaged files of every format; none is read for ever or raises another kind."""
    random = np.random.default_rng(0)
    (tmp_path / "a.png").write_bytes(_png(random.integers(0, 4095, (20, 30, 3)).astype(np.uint16)))
    tifffile.imwrite(tmp_path / "b.tif", RAMP.astype(np.float32), compression="zlib")
    tifffile.imwrite(tmp_path / "c.tif", COLOUR, photometric="rgb", tile=(16, 16))
    pds3(tmp_path / "d.IMG", RAMP.astype(">u2"), declared=">u2", image=TWELVE_BITS)
    pds4(tmp_path / "e.xml", RAMP.astype(">u2"), kind="UnsignedMSB2")
    Image.fromarray(COLOUR).save(tmp_path / "f.jpg")
    for path in [p for p in tmp_path.iterdir() if p.name != "e.IMG"]:
        whole = path.read_bytes()
        for _ in range(40):
            hurt = bytearray(whole)
            for _ in range(random.integers(1, 5)):
                hurt[random.integers(min(len(hurt), 700))] = random.integers(256)
            path.write_bytes(hurt)
            for read in (open_product, open_image, image_size):
                try:
                    read(path)
                except UserError as error:
                    assert path.name in str(error) or "e.IMG" in str(error)
                    assert "\n" not in str(error)


def test_a_label_of_the_wrong_byte_order(tmp_path: Path):
    path = pds3(tmp_path / "a.IMG", RAMP.astype("<i2"), declared=">i2", image=TWELVE_BITS)
    with pytest.raises(
        DamagedFileError,
        match=r"a\.IMG has values .*byte order in the label is wrong: correct SAMPLE",
    ):
        open_product(path)


def test_a_label_that_contradicts_its_data(tmp_path: Path):
    values = np.full((20, 30), 0x3FFF, np.uint16)
    values[0, 0] = 0x1F1F
    path = pds3(tmp_path / "a.IMG", values.astype(">u2"), declared=">u2", image=TWELVE_BITS)
    with pytest.raises(DamagedFileError, match=r"a\.IMG has values from 7967 to 16383.*0 to 4095"):
        open_product(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            b"SAMPLE_BITS = 16",
            b"SAMPLE_BITS = 12",
            "declares 12 bits per pixel, not 8, 16, 32 or 64",
        ),
        (b"^IMAGE = 9", b"^IMAGE = 1", r"places its IMAGE at the start of the label: correct \^IM"),
        (b"^IMAGE = 9", b"^IMAGE = 0", r"places its IMAGE at the start of the label: correct \^IM"),
        (b"^IMAGE = 9", b"^TABLE = 9", "without an image .objects: TABLE.: leave it out"),
        (b"LINES = 20", b"LINES = -5", "declares 30×-5 pixels.*: replace it"),
        (
            b"LINES = 20\r\n",
            b"LINES = 1E999\r\n",
            "does not define the size of its IMAGE: replace it",
        ),
        (b"LINES = 20", b"LINES=inf ", "does not define the size of its IMAGE: replace it"),
        (
            b"MSB_UNSIGNED_INTEGER",
            b"VAX_WEIRD           ",
            "damaged image .unknown or missing 'VAX_WEIRD'",
        ),
    ],
)
def test_a_label_that_cannot_be_true(tmp_path: Path, old: bytes, new: bytes, said: str):
    path = pds3(tmp_path / "a.IMG", RAMP.astype(">u2"), declared=">u2")
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    with pytest.raises(ValueError, match=rf"a\.IMG.* {said}"):
        open_product(path)


def test_sizes_of_pds4_that_are_no_numbers(tmp_path: Path):
    path = pds4(tmp_path / "a.xml", RAMP.astype(">u2"), kind="UnsignedMSB2")
    path.write_text(path.read_text().replace("<elements>20<", "<elements>many<"))
    with pytest.raises(DamagedFileError, match=r"a\.xml: a size or offset is not a number .*many"):
        open_product(path)


def test_complex_numbers(tmp_path: Path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 30), np.complex64))
    with pytest.raises(DamagedFileError, match=r"a\.tif has complex numbers \(complex64\)"):
        open_product(tmp_path / "a.tif")


def test_a_label_whose_image_is_elsewhere(tmp_path: Path):
    path = pds3(tmp_path / "a.IMG", RAMP.astype(">u2"), declared=">u2", detached=True)
    path.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"a\.LBL: its label names a\.IMG, which is missing"
    ):
        open_product(path.with_suffix(".LBL"))
    path = pds4(tmp_path / "b.xml", RAMP.astype(">u2"), kind="UnsignedMSB2")
    path.with_suffix(".IMG").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"b\.xml: its label names b\.IMG, which is missing"
    ):
        open_product(path)


def test_without_pdr_the_message_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "pdr", None)
    path = pds3(tmp_path / "a.IMG", RAMP.astype(">u2"), declared=">u2")
    with pytest.raises(
        ValueError, match=r"pdr is not installed: run .*pip install 's5mars\[products\]'"
    ):
        open_product(path)


def test_one_file_stands_for_a_product(tmp_path: Path):
    pds3(tmp_path / "a.IMG", RAMP.astype(">u2"), declared=">u2", detached=True)
    pds4(tmp_path / "b.xml", RAMP.astype(">u2"), kind="UnsignedMSB2")
    pds4(tmp_path / "c.xml", RAMP.astype(">u2"), kind="UnsignedMSB2").with_suffix(".IMG").unlink()
    (tmp_path / "d.LBL").touch()
    (tmp_path / "collection.xml").write_text("<Product_Collection/>")
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".e.jpg").touch()
    for name in ("f.JPG", "a.JPG", "b.png"):  # two of them to browse
        (tmp_path / name).touch()
    names = [path.name for path in product_files(sorted(tmp_path.iterdir()))]
    assert names == ["a.IMG", "b.IMG", "c.xml", "d.LBL", "f.JPG"]


# real ------------------------------------------------------------------------------------------


def test_real_navcam_frames_with_detached_and_attached_labels(real_data: Path, tmp_path: Path):
    for path, sol in zip(sorted((real_data / "pds").glob("*.IMG")), (1343, 1347), strict=True):
        product = open_product(path)
        assert product.image.shape == (1024, 1024, 3)
        assert (product.info.sol, product.info.sources["sol"]) == (sol, "label")
        assert product.info.camera == "Navcam Left"
        assert product.stretch.high == 4095
        alone = tmp_path / path.name
        alone.write_bytes(path.read_bytes())
        attached = open_product(alone)
        assert (attached.image == product.image).all()
        assert attached.info == product.info
        # Of the same brightness as the same camera's frames in AI4Mars.
        assert 50 < np.median(product.image) < 90


def test_real_raw_feed(real_data: Path):
    sols = []
    for path in sorted((real_data / "raw_products").glob("*.png")):
        product = open_product(path)
        assert product.mosaic is None  # colour was made on the rover
        assert (product.image == np.asarray(Image.open(path))).all()
        assert product.info.mission == "M2020"
        sols.append(product.info.sol)
    assert sols == [670, 731, 53]
