"""The cells of a comparison: rows × labelled shares × seeds, their names and their folders."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from s5mars.data.partition import as_fraction
from s5mars.errors import UserError
from s5mars.methods import METHODS, OF_A_NETWORK, method_title

METHODS_GROUP = "methods"
BASELINE = "supervised"
ABLATED = "s5mars"

OF_GENERAL_MODELS = frozenset({"--adapter", "--input-side", "--features"})
"""Options of ``train`` that only a row of table VI can use."""

_TAKEN = {
    "--seed": "--seeds",
    "--method": "--methods",
    "--resume": "the same compare command again: it goes on by itself",
    "--print-config": "s5mars train --print-config",
}


@dataclass(frozen=True)
class Row:
    """A row of the table: a method, or a variant of one."""

    name: str  # "s5mars", or "augin/efdm" for a row of an ablation
    title: str
    group: str  # rows of one group are compared: "methods", or the name of the ablation
    method: str
    ablation: str = ""  # as ``s5mars train --ablation`` takes it
    arguments: tuple[str, ...] = ()  # of ``s5mars train``, that the row brings
    without: frozenset[str] = OF_GENERAL_MODELS  # options that are not for it

    @property
    def folder(self) -> str:
        """The name as one part of a path."""
        return self.name.replace("/", "-")


@dataclass(frozen=True)
class Cell:
    """One run of one row."""

    row: Row
    share: str  # as ``share_name`` gives it
    labelled: str  # as ``s5mars train --labelled`` takes it
    seed: int

    @property
    def name(self) -> str:
        """Such as ``s5mars 0.125 seed 0``."""
        return f"{self.row.name} {self.share} seed {self.seed}"

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from the others."""
        return self.row.name, self.share, self.seed

    @property
    def path(self) -> Path:
        """Of its run, below the folder of the comparison."""
        return Path("cells", self.row.folder, self.share, f"seed-{self.seed}")


def method_rows(names: Sequence[str]) -> tuple[Row, ...]:
    """The rows of some methods, or of ``all``.

    Raises:
        UserError: for an unknown name: all names, the nearest first.
    """
    chosen = list(METHODS) if list(names) == ["all"] else list(dict.fromkeys(names))
    for name in chosen:
        if name not in METHODS:
            raise UserError(f"unknown method {name!r}; methods: {_nearest_first(name, METHODS)}")
    return tuple(Row(name, method_title(name), METHODS_GROUP, name) for name in chosen)


def ablation_rows(name: str) -> tuple[Row, ...]:
    """The rows of an ablation of S5Mars.

    Raises:
        UserError: for an unknown name: all names, the nearest first.
    """
    from s5mars.settings.ablations import ABLATIONS

    if name not in ABLATIONS:
        raise UserError(f"unknown ablation {name!r}; ablations: {_nearest_first(name, ABLATIONS)}")
    return tuple(
        Row(f"{name}/{row}", row, name, ABLATED, f"{name}/{row}") for row in ABLATIONS[name].rows
    )


def share_name(labelled: str) -> str:
    """``"0.250"`` → ``"0.25"``; a list file is named after itself.

    Raises:
        UserError: if it is a number outside (0, 1].
    """
    fraction = as_fraction(labelled)
    return f"list-{Path(labelled).stem}" if fraction is None else f"{fraction:g}"


def cells_of(rows: Sequence[Row], labelled: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Seed by seed, so that a comparison stopped halfway has whole seeds to compare.

    Raises:
        UserError: if two list files have one name, or a seed is negative.
    """
    shares: dict[str, str] = {}
    for each in labelled:
        name = share_name(each)
        if shares.setdefault(name, each) != each and as_fraction(each) is None:
            raise UserError(f"{shares[name]} and {each} have one name: rename one of the lists")
    if negative := [seed for seed in seeds if seed < 0]:
        raise UserError(f"a seed is {negative[0]}: it must not be below 0")
    return [
        Cell(row, name, each, seed)
        for seed in dict.fromkeys(seeds)
        for name, each in shares.items()
        for row in rows
    ]


def arguments_of(row: Row, arguments: Sequence[str]) -> list[str]:
    """What of the arguments is for this row: not the fields of other methods.

    Raises:
        UserError: for an option that the grid itself sets.
    """
    kept: list[str] = []
    for option in _options(arguments):
        name = option[0].partition("=")[0]
        if name in _TAKEN:
            raise UserError(f"compare takes no {name}: use {_TAKEN[name]}")
        owner = name.removeprefix("--").partition(".")[0]
        of_another = "." in name and owner in {*METHODS, *OF_A_NETWORK} - {row.method}
        if not of_another and name.replace("_", "-") not in row.without:
            kept += option
    return [*kept, *row.arguments]


def _options(arguments: Iterable[str]) -> Iterator[list[str]]:
    """Each option with its values."""
    option: list[str] = []
    for word in arguments:
        if word.startswith("--") and option:
            yield option
            option = []
        option.append(word)
    if option:
        yield option


def _nearest_first(wrong: str, names: Iterable[str]) -> str:
    def likeness(name: str) -> float:
        return difflib.SequenceMatcher(None, wrong, name).ratio()

    return ", ".join(sorted(names, key=likeness, reverse=True))
