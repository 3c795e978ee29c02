"""What a product knows of itself, and where each piece of that stands written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Literal

Source = Literal["label", "file name", "clock"]
"""``"clock"``: a sol computed from the spacecraft clock, see ``names.sol_of_clock``."""


@dataclass(frozen=True)
class ProductInfo:
    """Metadata of a product; None is "not known", and nothing is guessed.

    ``sources`` names where each field that is not None comes from.
    """

    mission: str | None = None  # MSL, M2020, or as the label spells another one
    rover: str | None = None  # Curiosity, Perseverance, ...
    camera: str | None = None  # "Navcam Left", ...; without a naming rule as the label spells it
    sol: int | None = None
    product_id: str | None = None
    utc: str | None = None  # start of the exposure, ISO 8601
    sclk: float | None = None  # start of the exposure on the spacecraft clock, seconds
    sources: Mapping[str, Source] = field(default_factory=lambda: MappingProxyType({}))

    def row(self) -> dict[str, str | int | float | None]:
        """The fields and their sources, flat, for one row of a table.

        ``{"mission": "MSL", ..., "sources": "camera: label; sol: clock"}``.
        """
        values: dict[str, str | int | float | None] = {name: getattr(self, name) for name in NAMES}
        values["sources"] = "; ".join(f"{name}: {where}" for name, where in self.sources.items())
        return values


NAMES = tuple(f.name for f in fields(ProductInfo) if f.name != "sources")
"""The fields that hold knowledge, in order."""


def known(source: Source, **values: str | int | float | None) -> ProductInfo:
    """An info whose fields all come from one place; None fields have no source."""
    found = {name: value for name, value in values.items() if value is not None}
    return ProductInfo(**found, sources=MappingProxyType(dict.fromkeys(found, source)))  # type: ignore[arg-type]


def first_known(*infos: ProductInfo) -> ProductInfo:
    """Each field from the first info that knows it."""
    values: dict[str, str | int | float] = {}
    sources: dict[str, Source] = {}
    for name in NAMES:
        for info in infos:
            if name in info.sources:
                values[name] = getattr(info, name)
                sources[name] = info.sources[name]
                break
    return ProductInfo(**values, sources=MappingProxyType(sources))  # type: ignore[arg-type]
