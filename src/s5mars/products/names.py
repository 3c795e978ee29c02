"""Parses product names of Curiosity (MSL) and Perseverance (M2020).

Three rules of fixed columns, from the missions' Camera Data Products Software Interface
Specifications:

- MSL, engineering cameras and ChemCam: ``NLB_516721703EDR_F0540992CCAM15900M1`` is camera (2),
  string (1), flag (1), spacecraft clock (9), product type (3), ... The sol is **not** in it.
- MSL, Mastcam, MAHLI and MARDI: ``0042ML0001930000102057E01_DXXX`` is sol (4), camera (2),
  sequence and line (9), counter and identifier (7), kind (1), group (1), version (1), processing.
- M2020: ``NLF_0670_0726421423_362ECM_N0320604NCAM08111_01_095J01`` is camera (2), colour or filter
  (1), flag (1), sol (4), venue (1), clock (10), milliseconds (3), product type (3), ...
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from s5mars.products.info import ProductInfo, Source, first_known, known

MSL_CAMERAS = {
    "NL": "Navcam Left", "NR": "Navcam Right",
    "FL": "Front Hazcam Left", "FR": "Front Hazcam Right",
    "RL": "Rear Hazcam Left", "RR": "Rear Hazcam Right",
    "CR": "ChemCam RMI",
    "ML": "Mastcam Left", "MR": "Mastcam Right", "MH": "MAHLI", "MD": "MARDI",
}  # fmt: skip

M2020_CAMERAS = {
    "NL": "Navcam Left", "NR": "Navcam Right",
    "FL": "Front Hazcam Left", "FR": "Front Hazcam Right",
    "BL": "Front Hazcam Left", "BR": "Front Hazcam Right",
    "RL": "Rear Hazcam Left", "RR": "Rear Hazcam Right",
    "ZL": "Mastcam-Z Left", "ZR": "Mastcam-Z Right",
    "LR": "SuperCam RMI", "CC": "CacheCam", "PC": "PIXL MCC",
    "SI": "SHERLOC WATSON", "SC": "SHERLOC ACI", "WS": "MEDA SkyCam",
    "HN": "Helicopter Navigation Camera", "HS": "Helicopter Color Camera",
    "EA": "Parachute Uplook Camera A", "EB": "Parachute Uplook Camera B",
    "EC": "Parachute Uplook Camera C", "ED": "Rover Downlook Camera",
    "EU": "Rover Uplook Camera", "ES": "Descent Stage Downlook Camera",
    "EL": "Lander Vision System Camera",
}  # fmt: skip

ROVERS = {"MSL": "Curiosity", "M2020": "Perseverance"}

_END = r"(?![0-9A-Za-z])"
_MSL = re.compile(
    r"(?P<camera>[A-Z]{2})(?P<string>[0-9A-Z])[0-9A-Z_](?P<clock>\d{9})(?P<type>[A-Z]{3})"
    rf"[A-Z_][A-Z][0-9A-Z]{{3}}[0-9A-Z]{{4}}\w{{9}}[A-Z][0-9A-Z]{_END}"
)
_MSL_SCIENCE = re.compile(
    r"(?P<sol>\d{4})(?P<camera>ML|MR|MH|MD)\d{9}\d{7}(?P<kind>[A-Z])[0-9A-Z]{2}"
    rf"(?:_[A-Z]{{4}})?{_END}"
)
_M2020 = re.compile(
    r"(?P<camera>[A-Z]{2})(?P<colour>[0-9A-Z_])[0-9A-Z_](?P<sol>\d{4})[0-9A-Z_](?P<clock>\d{10})"
    r"_(?P<milli>\d{3})(?P<type>[A-Z]{3})[A-Z_][A-Z][0-9A-Z]{3}[0-9A-Z]{4}\w{9}\w{4}[0-9A-Z]{4}"
    rf"[0-9A-Z_]{{2}}{_END}"
)

SOL_SECONDS = 88775.244147
"""A Martian solar day in SI seconds (Allison & McEwen 2000)."""

MSL_CLOCK = (516721703.665, 1343 + (13 * 3600 + 50 * 60 + 33.488) / 86400)
"""Clock reading and local mean solar time in sols of the same moment, from the label of
NLB_516721703EDR_F0540992CCAM15900M1: the reference of ``sol_of_clock``."""

CLOCK_TOLERANCE = 600.0
"""Bound in seconds on the drift of the clock against solar time over the mission."""


@dataclass(frozen=True)
class Name:
    """Information in a name."""

    info: ProductInfo
    mosaic: bool  # a frame of one channel under this name is a raw Bayer mosaic (RGGB)


def parse_name(text: str, *, source: Source = "file name") -> Name | None:
    """Parse the name or identifier of a product; None if it follows none of the three rules.

    Args:
        text: File name with or without ending, or product identifier of a label. Text after the
            columns of the rule is ignored if it starts with neither a letter nor a digit.
        source: Source of the text.
    """
    if found := _MSL.match(text):
        camera = MSL_CAMERAS.get(found["camera"])
        clock = float(found["clock"])
        info = _info(source, found[0], "MSL", camera, sol=None, sclk=clock)
        return Name(first_known(info, known("clock", sol=sol_of_clock(clock))), mosaic=False)
    if found := _MSL_SCIENCE.match(text):
        camera = MSL_CAMERAS[found["camera"]]
        info = _info(source, found[0], "MSL", camera, sol=int(found["sol"]), sclk=None)
        # Kinds A, B and C are rasters of the sensor; the others are colour or grey JPEGs that were
        # made from the colour image on board.
        return Name(info, mosaic=found["kind"] in "ABC")
    if found := _M2020.match(text):
        camera = M2020_CAMERAS.get(found["camera"])
        clock = float(f"{found['clock']}.{found['milli']}")
        info = _info(source, found[0], "M2020", camera, sol=int(found["sol"]), sclk=clock)
        return Name(info, mosaic=_m2020_mosaic(found))
    return None


def _info(
    source: Source, name: str, mission: str, camera: str | None, *,
    sol: int | None, sclk: float | None,
) -> ProductInfo:  # fmt: skip
    return known(
        source,
        mission=mission,
        rover=ROVERS[mission],
        camera=camera,
        sol=sol,
        product_id=name,
        sclk=sclk,
    )


def _m2020_mosaic(found: re.Match[str]) -> bool:
    # "E" is the raw Bayer pattern. Mastcam-Z has the filter number at this place; frames as
    # received (E..) of filter 0 (open) are mosaics if they have one channel.
    if found["colour"] == "E":
        return True
    as_received = found["type"].startswith("E") and found["type"] != "EBY"
    return found["camera"] in ("ZL", "ZR") and found["colour"] == "0" and as_received


def sol_of_clock(seconds: float) -> int | None:
    """Compute the sol of Curiosity from its clock.

    ``floor(s₀ + (seconds − t₀) / 88775.244147)`` with (t₀, s₀) = ``MSL_CLOCK``. None before the
    landing and within ``CLOCK_TOLERANCE`` of local midnight, because the clock drifts.
    """
    anchor, sol = MSL_CLOCK
    moment = sol + (seconds - anchor) / SOL_SECONDS
    margin = CLOCK_TOLERANCE / SOL_SECONDS
    return int(moment) if moment >= 0 and margin < moment % 1 < 1 - margin else None
