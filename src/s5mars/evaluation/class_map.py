"""Class maps: score a model on data that have other classes.

A map says which class of the data each class of the model is. ``soil=soil+gravel`` counts two
classes of the data as one, ``sand=soil, dust=soil`` two of the model. ``sky=-`` leaves a class of
the model out of its choice, and pixels of ``-=gravel`` do not count. Every class of both sides must
be named: one that is unmapped would change the scores unseen. ``*=-`` and ``-=*`` ignore all
others.

Classes exclude each other, so the probability of a merged class is the sum of those of its members.
It is computed before the most probable class is chosen: a model that hesitates between two classes
that are one here must not lose to a third one.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from s5mars.classes import IGNORE, Taxonomy, plain_name
from s5mars.errors import UserError, did_you_mean
from s5mars.files.reading import read_yaml
from s5mars.predict.predictor import Predictor

Side = tuple[str, ...]  # names of classes, or one of these signs

NOTHING: Side = ("-",)  # no class
OTHERS: Side = ("*",)  # all that no other pair names

_NAMED = Path(__file__).with_name("class_maps.yaml")


@dataclass(frozen=True)
class ClassMap:
    """Pairs of classes, as they were written."""

    pairs: tuple[tuple[Side, Side], ...]  # classes of the model, and of the data
    name: str = ""  # of a map that ships with the package; it skips classes that a side lacks

    @classmethod
    def parse(cls, text: str) -> ClassMap:
        """Read ``"big rock=rock, sky=-, -=gravel"``, or the name of a map of the package.

        Raises:
            UserError: if there is no such name, or a pair is not of the form A=B.
        """
        if "=" not in text:
            return _named(text.strip())
        return cls(tuple(_pair(entry) for entry in text.split(",") if entry.strip()))

    @classmethod
    def of(cls, pairs: Mapping[str, str], *, name: str = "") -> ClassMap:
        """The map of ``{"big rock": "rock", "soil": "soil + gravel", "sky": "-"}``."""
        return cls(tuple((_side(a), _side(b)) for a, b in pairs.items()), name=name)

    @property
    def label(self) -> str:
        """Name for file names; maps of a user have unique ones."""
        return self.name or f"map-{zlib.crc32(str(self).encode()):08x}"

    def __str__(self) -> str:
        return ", ".join(f"{'+'.join(a)}={'+'.join(b)}" for a, b in self.pairs)

    def between(self, model: Taxonomy, data: Taxonomy) -> MappedClasses:
        """The map for two lists of classes.

        Raises:
            UserError: if a class is unknown, mapped twice or not at all, or fewer than two
                classes are left to score.
        """
        # Classes of the data that a class is; none: it is left out.
        of_model: dict[int, frozenset[int]] = {}
        of_data: dict[int, frozenset[int]] = {}
        for left, right in sorted(self.pairs, key=lambda pair: OTHERS in pair):
            a = self._indices(left, model, "model", named=of_model, other=right)
            b = self._indices(right, data, "data", named=of_data, other=left)
            if (left != NOTHING and not a) or (right != NOTHING and not b):
                continue  # a map of the package, and a side that lacks the class
            group = frozenset(b)
            for index in a:
                self._set(of_model, index, group, model, "model")
            for index in b:
                self._set(of_data, index, group if a else frozenset(), data, "data")
        unmapped = [
            f"{', '.join(names)} of the {whose}"
            for whose, taxonomy, named in (("model", model, of_model), ("data", data, of_data))
            if (names := [n for i, n in enumerate(taxonomy.names) if i not in named])
        ]
        if unmapped:
            raise UserError(
                f"{self._option}: {' and '.join(unmapped)} must be mapped or ignored; use CLASS=- "
                "to ignore a class of the model, -=CLASS for one of the data, and *=- and -=* for "
                "all others"
            )
        groups = sorted({group for group in of_model.values() if group}, key=min)
        if len(groups) < 2:
            raise UserError(f"{self._option}: fewer than two classes are left to score")
        position = {group: index for index, group in enumerate(groups)}
        return MappedClasses(
            name=self.name,
            model=model,
            data=data,
            taxonomy=Taxonomy(data.name, tuple(data.joined(sorted(group)) for group in groups)),
            of_model=tuple(position.get(of_model[index]) for index in range(len(model))),
            of_data=tuple(position.get(of_data[index]) for index in range(len(data))),
        )

    @property
    def _option(self) -> str:
        return f"--map {self.name or str(self)!r}"

    def _indices(
        self,
        side: Side,
        taxonomy: Taxonomy,
        whose: str,
        *,
        named: Mapping[int, object],
        other: Side,
    ) -> list[int]:
        if side == NOTHING:
            return []
        if side == OTHERS and other == NOTHING:
            return [index for index in range(len(taxonomy)) if index not in named]
        found = {name: _find(name, taxonomy) for name in side}
        unknown = [name for name, index in found.items() if index is None]
        if unknown and not self.name:
            raise UserError(
                f"{self._option}: the {whose} has no class {unknown[0]!r}; it has "
                f"{', '.join(taxonomy.names)}{did_you_mean(unknown[0], taxonomy.names)}"
            )
        return [index for index in found.values() if index is not None]

    def _set(
        self,
        named: dict[int, frozenset[int]],
        index: int,
        group: frozenset[int],
        taxonomy: Taxonomy,
        whose: str,
    ) -> None:
        if named.setdefault(index, group) != group:
            raise UserError(
                f"{self._option}: {taxonomy.names[index]} of the {whose} is mapped twice; map "
                "each class of the model once, and write merged classes of the data in the same "
                "way in all pairs"
            )


@dataclass(frozen=True)
class MappedClasses:
    """A map between two taxonomies: class → scored class, or None if it is left out."""

    name: str  # of the map, if it has one
    model: Taxonomy
    data: Taxonomy
    taxonomy: Taxonomy  # the classes that are scored
    of_model: tuple[int | None, ...]
    of_data: tuple[int | None, ...]

    def truth(self, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W) class indices of the data → those that are scored; IGNORE where left out."""
        table = np.full(256, IGNORE, np.uint8)
        table[: len(self.of_data)] = [IGNORE if i is None else i for i in self.of_data]
        return table[label]

    def predict(self, predictor: Predictor, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) image → (H, W) scored class of the largest summed calibrated probability."""
        labels, members = np.empty(image.shape[:2], np.uint8), self._members
        for rows, columns, block in predictor.blocks(image):
            summed = torch.stack([block[each].sum(0) for each in members])
            labels[rows, columns] = summed.argmax(0).to(torch.uint8).cpu().numpy()
        return labels

    @property
    def _members(self) -> list[list[int]]:
        """Classes of the model that each scored class consists of."""
        return [
            [i for i, scored in enumerate(self.of_model) if scored == index]
            for index in range(len(self.taxonomy))
        ]

    def to_dict(self) -> dict[str, Any]:
        """Mapped, merged and ignored classes, for JSON."""
        return {
            "name": self.name,
            "classes": {
                name: [self.model.names[i] for i in members]
                for name, members in zip(self.taxonomy.names, self._members, strict=True)
            },
            "ignored_of_model": _left_out(self.model, self.of_model),
            "ignored_of_data": _left_out(self.data, self.of_data),
        }


def describe_map(mapping: Mapping[str, Any]) -> str:
    """``MappedClasses.to_dict`` in sentences, for tables and reports.

    With ``ignored_pixels``, the share of the labelled pixels that were left out, in percent.
    """
    name = f" {mapping['name']}" if mapping["name"] else ""
    pairs = "; ".join(
        f"{' and '.join(members)} of the model is {scored}"
        if len(members) == 1
        else f"{' and '.join(members)} of the model are {scored}, with their probabilities added"
        for scored, members in mapping["classes"].items()
    )
    sentences = [f"Class map{name}: {pairs}."]
    if ignored := mapping["ignored_of_model"]:
        sentences.append(f"The model cannot predict {', '.join(ignored)}.")
    if ignored := mapping["ignored_of_data"]:
        sentences.append(
            f"Pixels of {', '.join(ignored)} ({mapping['ignored_pixels']:.1f} % of the labelled "
            "ones) are ignored."
        )
    return " ".join(sentences)


def _left_out(taxonomy: Taxonomy, scored: Sequence[int | None]) -> list[str]:
    return [name for name, index in zip(taxonomy.names, scored, strict=True) if index is None]


def _find(name: str, taxonomy: Taxonomy) -> int | None:
    """Index of a class; "big rock" finds "big_rock" if no class is called so exactly."""
    if name in taxonomy.names:
        return taxonomy.names.index(name)
    alike = [i for i, other in enumerate(taxonomy.names) if plain_name(other) == plain_name(name)]
    return alike[0] if len(alike) == 1 else None


def _pair(entry: str) -> tuple[Side, Side]:
    left, _, right = entry.partition("=")
    if not right.strip() or "=" in right or not left.strip():
        raise UserError(f"--map: {entry.strip()!r} is not of the form MODEL_CLASS=DATA_CLASS")
    return _side(left), _side(right)


def _side(text: str) -> Side:
    return tuple(part.strip() for part in text.split("+"))


def _named(name: str) -> ClassMap:
    maps = named_maps()
    if name in maps:
        return ClassMap.of(maps[name], name=name)
    raise UserError(
        f"--map must be pairs such as 'big rock=rock,sky=-', or one of {', '.join(maps)} "
        f"(got {name!r}){did_you_mean(name, maps)}"
    )


def named_maps() -> dict[str, dict[str, str]]:
    """The maps that ship with the package: name → pairs, as ``ClassMap.of`` reads them."""
    maps: dict[str, dict[str, str]] = read_yaml(_NAMED, as_text=True)
    return maps
