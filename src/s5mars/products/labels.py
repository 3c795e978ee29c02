"""Reads a ``ProductInfo`` from PDS3 and PDS4 labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from xml.etree import ElementTree

from s5mars.products.info import ProductInfo, first_known, known
from s5mars.products.names import ROVERS, parse_name

MISSIONS = {
    "MARS SCIENCE LABORATORY": "MSL",
    "MARS 2020": "M2020",
    "MARS 2020 PERSEVERANCE ROVER": "M2020",
    "MARS 2020 ROVER MISSION": "M2020",
}

_UNKNOWN = {"", "N/A", "UNK", "NULL", "NONE", "UNKNOWN", "NIL"}

_SOL = r"-?0*\d{1,8}"  # no more than a column of 64 bits holds, and any rover lives

Lookup = Callable[[str], object]
"""Keyword → its value anywhere in the label, or None."""


def info_of_pds3(lookup: Lookup) -> ProductInfo:
    """Read ``MISSION_NAME``, ``PRODUCT_ID``, ``PLANET_DAY_NUMBER``, ``START_TIME``,
    ``SPACECRAFT_CLOCK_START_COUNT`` and ``INSTRUMENT_NAME``."""
    return _info(
        mission=_text(lookup("MISSION_NAME")),
        product_id=_text(lookup("PRODUCT_ID")),
        sol=_text(lookup("PLANET_DAY_NUMBER")),
        utc=_text(lookup("START_TIME")),
        clock=_text(lookup("SPACECRAFT_CLOCK_START_COUNT")),
        instrument=_text(lookup("INSTRUMENT_NAME")),
    )


def info_of_pds4(root: ElementTree.Element) -> ProductInfo:
    """Read the name of the investigation, the last part of the logical identifier,
    ``start_sol_number`` or ``sol_number``, ``start_date_time``, ``spacecraft_clock_start`` (of
    any of the local dictionaries) and the instrument of the observing system."""
    texts = texts_of(root)
    identifier = _text(texts.get("logical_identifier"))
    return _info(
        mission=_text(_below(root, "Investigation_Area", "name")),
        product_id=identifier.rpartition(":")[2].upper() if identifier else None,
        sol=_text(texts.get("start_sol_number") or texts.get("sol_number")),
        utc=_text(texts.get("start_date_time")),
        clock=_text(
            texts.get("spacecraft_clock_start") or texts.get("spacecraft_clock_start_count")
        ),
        instrument=_text(_below(root, "Observing_System_Component", "name", type="Instrument")),
    )


def texts_of(root: ElementTree.Element) -> Mapping[str, str]:
    """Local name → text of the first element with this name and a text."""
    texts: dict[str, str] = {}
    for element in root.iter():
        if element.text and element.text.strip():
            texts.setdefault(local(element.tag), element.text.strip())
    return texts


def local(tag: object) -> str:
    """A tag without its namespace."""
    return str(tag).rpartition("}")[2]


def _below(root: ElementTree.Element, area: str, name: str, **others: str) -> str | None:
    """Text of an element in the first area in which the ``others`` have these texts."""
    for element in root.iter():
        if local(element.tag) == area:
            texts = texts_of(element)
            if all(texts.get(other) == value for other, value in others.items()):
                return texts.get(name)
    return None


def _info(
    *,
    mission: str | None,
    product_id: str | None,
    sol: str | None,
    utc: str | None,
    clock: str | None,
    instrument: str | None,
) -> ProductInfo:
    short = MISSIONS.get(mission.upper(), mission) if mission else None
    written = known(
        "label",
        mission=short,
        rover=ROVERS.get(short or ""),
        sol=int(sol) if sol and re.fullmatch(_SOL, sol) else None,
        product_id=product_id,
        utc=utc,
        sclk=_seconds(clock),
    )
    # The identifier in the label follows the same rules as a file name.
    named = parse_name(product_id or "", source="label")
    spelt = known("label", camera=instrument)
    return first_known(written, named.info if named else ProductInfo(), spelt)


def _seconds(clock: str | None) -> float | None:
    """``"516721703.665"``, ``"1/516721703-665"`` → seconds, without the partition."""
    found = re.fullmatch(r"(?:\d+/)?(\d{1,15})(?:[.:-](\d+))?", clock or "")
    return float(f"{found[1]}.{found[2] or 0}") if found else None


def _text(value: object) -> str | None:
    if value is None or isinstance(value, Mapping):
        return None
    text = " ".join(str(value).split())
    return None if text.upper() in _UNKNOWN else text
