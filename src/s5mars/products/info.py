"""Metadata of a product, with the source of each value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Literal

Source = Literal["label", "file name", "clock"]
"""``"clock"``: a sol computed from the spacecraft clock, see ``names.sol_of_clock``."""


@dataclass(frozen=True)
class ProductInfo:
    """Metadata of a product; None means unknown; values are never guessed.

    ``sources`` contains the source of each field that is not None.
    """

    mission: str | None = None  # MSL, M2020, or the mission name of the label
    rover: str | None = None  # Curiosity, Perseverance, ...
    camera: str | None = None  # "Navcam Left", ..., or the instrument name of the label
    sol: int | None = None
    product_id: str | None = None
    utc: str | None = None  # start of the exposure, ISO 8601
    sclk: float | None = None  # start of the exposure on the spacecraft clock, seconds
    sources: Mapping[str, Source] = field(default_factory=lambda: MappingProxyType({}))

    def row(self) -> dict[str, str | int | float | None]:
        """Return the fields and their sources as one table row.

        ``{"mission": "MSL", ..., "sources": "camera: label; sol: clock"}``.
        """
        values: dict[str, str | int | float | None] = {name: getattr(self, name) for name in NAMES}
        values["sources"] = "; ".join(f"{name}: {where}" for name, where in self.sources.items())
        return values


NAMES = tuple(f.name for f in fields(ProductInfo) if f.name != "sources")
"""Names of all fields but ``sources``, in order."""


def known(source: Source, **values: str | int | float | None) -> ProductInfo:
    """Create an info whose fields have one source; None fields have no source."""
    found = {name: value for name, value in values.items() if value is not None}
    return ProductInfo(**found, sources=MappingProxyType(dict.fromkeys(found, source)))  # type: ignore[arg-type]


def first_known(*infos: ProductInfo) -> ProductInfo:
    """Take each field from the first info that has it."""
    values: dict[str, str | int | float] = {}
    sources: dict[str, Source] = {}
    for name in NAMES:
        for info in infos:
            if name in info.sources:
                values[name] = getattr(info, name)
                sources[name] = info.sources[name]
                break
    return ProductInfo(**values, sources=MappingProxyType(sources))  # type: ignore[arg-type]
