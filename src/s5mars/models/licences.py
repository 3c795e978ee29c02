"""Licences of pretrained encoders: display, agreement and records.

Identifiers are those of timm's records (``timm.get_pretrained_cfg(name).license``). DINOv2 is
Apache-2.0. The terms of DINOv3 are from its licence of 19 August 2025, sections 1.b.i, ii and v.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm

from s5mars.errors import UserError
from s5mars.files.reading import read_text
from s5mars.models.weights import PACKAGES, named_weights

DINOV3 = "dinov3-license"


@dataclass(frozen=True)
class Licence:
    """Licence of the weights of an encoder."""

    identifier: str
    terms: tuple[str, ...] = ()  # of a licence that users must agree to; else empty
    link: str = ""
    passes_on: bool = False  # whether models made from the weights are under it, too

    @property
    def limited(self) -> bool:
        """Whether it forbids commercial use (Creative Commons NC)."""
        return "-nc" in self.identifier

    def __str__(self) -> str:
        if self.terms:
            return f"encoder licence: {self.identifier} ({self.link}): {' '.join(self.terms)}"
        note = ", which forbids commercial use" if self.limited else ""
        return f"encoder licence: {self.identifier}{note}"


_OWN = {
    DINOV3: Licence(
        DINOV3,
        (
            "No use in activities under ITAR, nor for military or warfare purposes, nuclear "
            "industries, espionage or weapons.",
            "Models made from the weights may be shared under the same licence only, with a copy "
            "of it.",
            "Publications must acknowledge DINOv3.",
        ),
        link="https://ai.meta.com/resources/models-and-libraries/dinov3-license/",
        passes_on=True,
    )
}


def licence_of(model: str, weights: str) -> Licence | None:
    """The licence of an encoder's pretrained weights; None if unknown, or if there are none.

    A local file says nothing of its licence, so it counts as published weights of this
    architecture if all of them have the same licence.
    """
    if weights == "none" or (weights == "auto" and model in PACKAGES):
        return None
    if "dinov3" in weights.lower() or _is_dinov3(Path(weights)):
        return _OWN[DINOV3]
    named = named_weights(weights)
    base = model.partition(".")[0]
    if weights == "auto" or named is not None:
        found = {_recorded(named or model)}
    else:
        found = {_recorded(name) for name in timm.list_pretrained(f"{base}.*")} or {_recorded(base)}
    identifier = found.pop() if len(found) == 1 else None
    return None if identifier is None else _OWN.get(identifier, Licence(identifier))


def require_agreement(licence: Licence | None, accepted: str) -> None:
    """Raise if a licence must be agreed to and ``--accept-licence`` did not name it.

    Raises:
        UserError: with the terms; also if the agreement is to a licence that does not apply.
    """
    if licence is not None and licence.terms:
        if accepted != licence.identifier:
            raise UserError(
                f"{licence}. Read it; if you agree, add --accept-licence {licence.identifier}. The "
                "licence of DINOv2 (vit_small_patch14_dinov2) is Apache-2.0"
            )
    elif accepted:
        raise UserError(
            f"--accept-licence is {accepted!r}, but these weights need no agreement; leave it out"
        )


def as_facts(licence: Licence | None) -> dict[str, Any] | None:
    """For the JSON file of a checkpoint."""
    return None if licence is None else {**asdict(licence), "terms": list(licence.terms)}


def from_facts(facts: Mapping[str, Any]) -> Licence | None:
    """The licence of the encoder that a checkpoint's training facts record."""
    found = facts.get("encoder_licence")
    if not isinstance(found, Mapping) or not isinstance(found.get("identifier"), str):
        return None
    identifier = found["identifier"]
    return _OWN.get(identifier, Licence(identifier))


def _is_dinov3(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and "dinov3" in read_text(config).lower()


def _recorded(name: str) -> str | None:
    try:
        config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # timm has no such encoder, which building the network says better
        return None
    return None if config is None else config.license
