"""What file names say, and what they do not."""

from __future__ import annotations

import pytest

from s5mars.products import ProductInfo, read_info
from s5mars.products.names import parse_name, sol_of_clock


def test_an_msl_engineering_name_has_a_clock_and_no_sol_of_its_own():
    info = read_info("archive/NLA_397682316EDR_F0020000AUT_04096M1.JPG")
    assert (info.mission, info.rover, info.camera) == ("MSL", "Curiosity", "Navcam Left")
    assert info.product_id == "NLA_397682316EDR_F0020000AUT_04096M1"
    assert (info.sclk, info.utc) == (397682316.0, None)
    # That is one of the first Navcam frames, of sol 2; the sol is computed and says so.
    assert (info.sol, info.sources["sol"]) == (2, "clock")
    assert {where for name, where in info.sources.items() if name != "sol"} == {"file name"}
    assert "utc" not in info.sources


def test_an_msl_science_name_has_a_sol_and_no_clock():
    info = read_info("0042ML0001930000102057E01_DXXX.jpg")
    assert (info.mission, info.camera, info.sol) == ("MSL", "Mastcam Left", 42)
    assert info.sources["sol"] == "file name"
    assert info.sclk is None
    assert read_info("1664MR0086340000802438C00_DRCL.IMG").camera == "Mastcam Right"
    assert read_info("0046MH0000130000100126E01_DXXX.jpg").camera == "MAHLI"


def test_an_m2020_name_has_both():
    info = read_info("ZL0_0053_0671642352_402ECM_N0032046ZCAM05025_110085J01.png")
    assert (info.mission, info.rover, info.camera) == ("M2020", "Perseverance", "Mastcam-Z Left")
    assert (info.sol, info.sclk) == (53, 671642352.402)
    assert set(info.sources.values()) == {"file name"}


@pytest.mark.parametrize(
    "name",
    [
        "137_1_x0_y30.jpg", "holiday.png", "", "sol_001.jpg",
        "NLB_51672170EDR_F0540992CCAM15900M1",  # a digit of the clock is missing
        "NLB_516721703EDR_F0540992CCAM15900M1copy",
        "1N128287181EFF0000P1303L0M1.IMG",  # another mission's rule
        "NLF_XXXX_0726421423_362ECM_N0320604NCAM08111_01_095J01.png",
    ],
)  # fmt: skip
def test_other_names_say_nothing(name: str):
    assert read_info(name) == ProductInfo()
    assert read_info(name).row()["sources"] == ""


def test_what_follows_the_rule_is_left_aside():
    assert read_info("NLB_516721703EDR_F0540992CCAM15900M1_merged.png").sol == 1343
    assert read_info("NLB_516721703EDR_F0540992CCAM15900M1-112.png").sol == 1343


@pytest.mark.parametrize(
    ("name", "mosaic"),
    [
        ("NLE_0121_0677702345_000ECM_N0040136NCAM00501_01_295J01", True),
        ("NLF_0670_0726421423_362ECM_N0320604NCAM08111_01_095J01", False),
        ("ZL0_0053_0671642352_402ECM_N0032046ZCAM05025_110085J01", True),
        ("ZL0_0053_0671642352_402EBY_N0032046ZCAM05025_110085J01", False),
        ("ZR3_0053_0671642352_402ECM_N0032046ZCAM05025_110085J01", False),
        ("0042ML0001930000102057C00_DXXX", True),
        ("0042ML0001930000102057E01_DXXX", False),
        ("NLB_516721703EDR_F0540992CCAM15900M1", False),
    ],
)
def test_which_names_mean_a_mosaic_where_there_is_one_channel(name: str, mosaic: bool):
    named = parse_name(name)
    assert named is not None
    assert named.mosaic == mosaic


def test_the_sol_of_a_clock_against_two_labels_and_its_doubt_at_midnight():
    assert sol_of_clock(516721703.665) == 1343  # 13:50 local mean solar time by its label
    assert sol_of_clock(517071516.836) == 1347  # 12:24
    midnight = 516721703.665 - (13 * 3600 + 50 * 60 + 33.488) * 88775.244147 / 86400
    assert sol_of_clock(midnight + 3600) == 1343
    assert sol_of_clock(midnight - 3600) == 1342
    assert sol_of_clock(midnight + 60) is sol_of_clock(midnight - 60) is None
    assert sol_of_clock(1000.0) is None  # long before the landing
