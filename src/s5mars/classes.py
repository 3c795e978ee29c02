"""Taxonomies (class names, colours, labelling criteria) and the ignore value.

A class index is a position in ``Taxonomy.classes``. A ``MaskCoding`` maps the ids in mask files to
class indices.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from s5mars.errors import UserError

IGNORE = 255
"""Value of pixels whose class is unknown, padded or hidden, in all arrays in memory."""

Colour = tuple[int, int, int]
"""RGB, 0..255."""

UNLABELLED_COLOUR = (0, 0, 0)

_COLOURS: Mapping[str, tuple[str, ...]] = {
    "#64c8ff": ("sky", "atmosphere"),
    "#7878c8": ("ridge", "mountain", "hill", "horizon", "distant", "background"),
    "#a0522d": ("soil", "regolith", "dirt", "ground", "dust"),
    "#e6c35c": ("sand", "dune", "ripple"),
    "#d08c60": ("bedrock", "outcrop"),
    "#dc3c3c": ("rock", "boulder", "stone"),
    "#f0f0f0": ("rover", "hardware", "spacecraft"),
    "#8cc850": ("trace", "track", "wheel"),
    "#b450b4": ("hole", "drill"),
    "#969696": ("gravel", "pebble"),
    "#3c3c50": ("shadow",),
}
"""Colour → words in the names of the classes that get it."""

_PALETTE = ("#00a0a0", "#3c78d8", "#8cc850", "#b450b4", "#969696", "#7878c8")
"""Colours of classes with other names; none of them is that of a terrain or the sky."""


@dataclass(frozen=True)
class Class:
    """One class: its name, its colour in maps, and its labelling criterion."""

    name: str
    colour: Colour
    criterion: str = ""


@dataclass(frozen=True)
class Taxonomy:
    """A list of classes in the order of their index."""

    name: str
    classes: tuple[Class, ...]

    def __post_init__(self) -> None:
        names = self.names
        doubles = sorted({n for n in names if names.count(n) > 1})
        if doubles:
            raise UserError(
                f"taxonomy {self.name!r} has the class name {doubles[0]!r} twice: rename one"
            )
        if not 1 <= len(names) < IGNORE:
            raise UserError(
                f"taxonomy {self.name!r} must have 1 to {IGNORE - 1} classes (got {len(names)})"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of their index."""
        return tuple(c.name for c in self.classes)

    def __len__(self) -> int:
        return len(self.classes)

    def joined(self, indices: Iterable[int]) -> Class:
        """One class for several: their names joined by ``+``, and the colour of the first."""
        members = [self.classes[index] for index in indices]
        return replace(members[0], name="+".join(member.name for member in members))

    @property
    def palette(self) -> list[int]:
        """Flat list of 256 RGB triples for PIL's ``putpalette``; IGNORE is black."""
        colours = [*(c.colour for c in self.classes)]
        colours += [UNLABELLED_COLOUR] * (256 - len(colours))
        return [channel for colour in colours for channel in colour]

    @classmethod
    def of_names(
        cls, name: str, names: Sequence[str], colours: Sequence[Colour | None] = ()
    ) -> Taxonomy:
        """Classes whose colours differ, with the criteria of usual names.

        Args:
            name: Name of the taxonomy.
            names: Names of the classes.
            colours: Colours to use, unless they are black or that of an earlier class.
        """
        given = [*colours, *[None] * (len(names) - len(colours))]
        for index, colour in enumerate(given):
            if colour == UNLABELLED_COLOUR or colour in given[:index]:
                given[index] = None
        chosen = with_missing_colours(names, given)
        criteria = [_CRITERIA.get(plain_name(each), "") for each in names]
        return cls(name, tuple(map(Class, names, chosen, criteria)))

    def to_dict(self) -> dict[str, object]:
        """Return a dict for JSON and YAML, which ``from_dict`` reads."""
        return {
            "name": self.name,
            "classes": [
                {"name": c.name, "color": hex_colour(c.colour), "criterion": c.criterion}
                for c in self.classes
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Taxonomy:
        """Read ``{"name": ..., "classes": [{"name": ..., "color": ..., "criterion": ...}]}``.

        Raises:
            UserError: if a class has no name or a colour is not ``#rrggbb``.
        """
        entries = data.get("classes")
        if not isinstance(entries, list) or not entries:
            raise UserError("`classes` must be a list with at least one entry")
        for index, entry in enumerate(entries):
            if not isinstance(entry, Mapping):
                raise UserError(
                    f"class {index} must have the form {{name: soil, ids: [0]}} (got {entry!r})"
                )
            if "name" not in entry:
                raise UserError(f"class {index} has no `name`: add it")
            colour, texts = entry.get("color") or "", (entry["name"], entry.get("criterion", ""))
            if not all(isinstance(text, str) for text in texts) or not entry["name"].strip():
                raise UserError(f"class {index}: name and criterion must be strings")
            if not isinstance(colour, str):
                raise UserError(f'class {index}: color must be a string such as "#a0522d"')
        given = [rgb(entry["color"]) if entry.get("color") else None for entry in entries]
        colours = with_missing_colours([entry["name"] for entry in entries], given)
        classes = [
            Class(entry["name"], colour, entry.get("criterion", ""))
            for entry, colour in zip(entries, colours, strict=True)
        ]
        name = data.get("name", "custom")
        if not isinstance(name, str):
            raise UserError("the name of a taxonomy must be a string")
        return cls(name, tuple(classes))


@dataclass(frozen=True)
class MaskCoding:
    """Meaning of the ids in mask files: file id → class index, and the ids to ignore."""

    index_of: Mapping[int, int]
    ignored: frozenset[int]

    @classmethod
    def identity(cls, number_of_classes: int, *, ignored: Iterable[int] = (IGNORE,)) -> MaskCoding:
        """Return a coding whose ids are the class indices."""
        return cls({i: i for i in range(number_of_classes)}, frozenset(ignored))


def without_controls(name: str) -> str:
    """A name with a space for control characters, line breaks and marks that turn text around."""
    if not any(map(_is_control, name)):
        return name
    return " ".join("".join(" " if _is_control(c) else c for c in name).split())


def require_printable(names: Iterable[str]) -> None:
    """Raise a UserError for a name with a control character, which would garble every output."""
    for name in names:
        if any(map(_is_control, name)):
            raise UserError(f"a class name must not contain control characters (got {name!r})")


def _is_control(character: str) -> bool:
    # Joiners are formatting characters that some scripts need.
    return character not in "\u200c\u200d" and unicodedata.category(character) in {
        "Cc", "Cf", "Zl", "Zp",
    }  # fmt: skip


def plain_name(name: str) -> str:
    """A name without what rarely tells classes apart: ``"Big_Rock"`` → ``"big rock"``."""
    return " ".join(re.split(r"[\s_-]+", name.casefold())).strip()


def require_same_classes(
    model: Taxonomy,
    others: Taxonomy,
    *,
    run: Path,
    data: Path,
    remedy: str = "give data with the same classes in this order",
) -> None:
    """Check that the model of ``run`` has the classes of ``data`` (or of another run), in order.

    Raises:
        UserError: if they differ; the message names both, and ends with the ``remedy``.
    """
    if model.names != others.names:
        raise UserError(
            f"{data} has the classes {', '.join(others.names)}, but {run} was trained on "
            f"{', '.join(model.names)}: {remedy}"
        )


def with_missing_colours(names: Sequence[str], given: Sequence[Colour | None]) -> list[Colour]:
    """Choose the colours that are None by the words of the class names, then from the palette.

    No chosen colour is black or the same as another: a second class of one kind gets a darker
    shade.
    """
    found = list(given)
    kinds = [_kind(name) for name in names]
    # Named kinds first, so that no class of another name takes their colour.
    for index in sorted(range(len(names)), key=lambda i: kinds[i] is None):
        if found[index] is None:
            kind = kinds[index]
            wanted = _PALETTE if kind is None else (kind,)
            found[index] = next(c for c in _shades(wanted) if c not in found)
    return [colour for colour in found if colour is not None]


def _kind(name: str) -> str | None:
    """The colour of a name such as "big rocks": its last known word decides."""
    words = re.findall("[a-z]+", name.lower())
    pairs = [first + second for first, second in itertools.pairwise(words)]  # such as "bed rock"
    for word in reversed((*words, *pairs)):
        for colour, kinds in _COLOURS.items():
            if word in kinds or word.removesuffix("s") in kinds:
                return colour
    return None


def _shades(colours: Sequence[str]) -> Iterator[Colour]:
    """The colours, darker shades of them, then as many others as there can be classes."""
    for part in range(4):
        for colour in colours:
            red, green, blue = (channel * 4 // (4 + part) for channel in rgb(colour))
            yield red, green, blue
    for number in itertools.count(1):
        yield number * 37 % 211, number * 91 % 199, number * 53 % 181


def rgb(text: str) -> tuple[int, int, int]:
    """``"#a0522d"`` → ``(160, 82, 45)``."""
    digits = text.removeprefix("#")
    try:
        if len(digits) != 6:
            raise ValueError
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)
    except ValueError:
        raise UserError(f"{text!r} is not a colour of the form #rrggbb") from None


def hex_colour(colour: tuple[int, int, int]) -> str:
    """``(160, 82, 45)`` → ``"#a0522d"``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


S5MARS = Taxonomy(
    "s5mars",
    (
        Class("sky", rgb("#64c8ff"), "above the horizon or the upper edge of a mountain"),
        Class("ridge", rgb("#7878c8"), "distant relief between the sky and the horizon"),
        Class("soil", rgb("#a0522d"), "loose or weakly bound, coarser grains, small stones"),
        Class("sand", rgb("#e6c35c"), "fine, fluid; often ripples with a lee and a stoss side"),
        Class("bedrock", rgb("#d08c60"), "rock partly covered by soil, buried to any depth"),
        Class("rock", rgb("#dc3c3c"), "a lump that lies free on the ground, often with a shadow"),
        Class("rover", rgb("#f0f0f0"), "any part of the rover itself"),
        Class("trace", rgb("#8cc850"), "tracks that the rover left on the ground"),
        Class("hole", rgb("#b450b4"), "a hole that the rover drilled, with its coloured tailings"),
    ),
)
"""The nine classes of the S5Mars paper, section III-A, in the order of its label files."""

S5MARS_CODING = MaskCoding({i + 1: i for i in range(9)}, frozenset({0}))
"""The released label files: 0 is unlabelled, 1..9 are the classes."""

AI4MARS = Taxonomy(
    "ai4mars",
    (
        Class("soil", rgb("#a0522d"), "unconsolidated or poorly consolidated material"),
        Class("bedrock", rgb("#d08c60"), "consolidated rock, flat on or in the ground"),
        Class("sand", rgb("#e6c35c"), "fine, loose material that may trap a wheel"),
        Class("big_rock", rgb("#dc3c3c"), "a rock that a wheel cannot climb, over about 30 cm"),
    ),
)
"""The four classes of AI4Mars (Swan et al., CVPR Workshops 2021)."""

AI4MARS_CODING = MaskCoding.identity(4)

_CRITERIA = {plain_name(each.name): each.criterion for each in (*AI4MARS.classes, *S5MARS.classes)}

_GEOLOGY = {
    0: ("bedrock_massive", "#d08c60"),
    1: ("bedrock_layered_angled", "#b9703f"),
    2: ("bedrock_layered_flat", "#e0a880"),
    3: ("bedrock_layered_unsure", "#a85c2c"),
    4: ("bedrock_conglomerate", "#8f4a1e"),
    5: ("bedrock_holey", "#f0c4a4"),
    6: ("bedrock_unsure", "#c89878"),
    10: ("float_rock_massive", "#dc3c3c"),
    11: ("float_rock_layered_angled", "#b42828"),
    12: ("float_rock_layered_flat", "#f07878"),
    13: ("float_rock_layered_unsure", "#8c1414"),
    14: ("float_rock_conglomerate", "#ff9696"),
    15: ("float_rock_holey", "#c85078"),
    16: ("float_rock_mixed", "#a03c5a"),
    17: ("float_rock_unsure", "#e6a0aa"),
    20: ("sand_dune", "#e6c35c"),
    21: ("sand_ripples", "#c8a03c"),
    22: ("sand_sand", "#f5e0a0"),
    30: ("pebbles", "#969696"),
    40: ("vein", "#b450b4"),
    50: ("hill", "#7878c8"),
}

AI4MARS_GEOLOGY = Taxonomy(
    "ai4mars_geology", tuple(Class(name, rgb(colour)) for name, colour in _GEOLOGY.values())
)
"""The 21 classes of the geology labels (M2020_GEO) of AI4Mars 0.6, in the order of their ids."""

AI4MARS_GEOLOGY_CODING = MaskCoding(
    {file_id: index for index, file_id in enumerate(_GEOLOGY)}, frozenset({IGNORE})
)

MARS_SEG = Taxonomy(
    "mars_seg",
    (
        Class("soil", rgb("#a0522d"), "weathered material of grains below 1 mm, without ridges"),
        Class("sand", rgb("#e6c35c"), "grains of 1 to 2 mm, fluid, with a lee and a stoss side"),
        Class("gravel", rgb("#969696"), "smaller than rocks and coarser than sand, greyish"),
        Class("bedrock", rgb("#d08c60"), "flat rock in the ground, mostly covered by soil"),
        Class("rock", rgb("#dc3c3c"), "a lump broken off a larger rock, rough and irregular"),
        Class("track", rgb("#8cc850"), "tracks that the rover left"),
        Class("shadow", rgb("#3c3c50"), "shadows of the rover and of rocks"),
        Class("unknown", rgb("#f0f0f0"), "none of the others, such as the rover itself"),
        Class("background", rgb("#64c8ff"), "sky and distant mountains"),
    ),
)
"""The nine classes of Mars-Seg (Li et al., TGRS 2022)."""
