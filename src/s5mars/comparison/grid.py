"""The cells of a comparison (rows × labelled shares × seeds), with their names and folders."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s5mars.data.partition import as_fraction
from s5mars.errors import UserError, nearest_first, require_limit
from s5mars.methods import (
    METHODS,
    OF_A_NETWORK,
    method_name,
    method_title,
    registered,
    title_of,
)
from s5mars.settings.ablations import ABLATED, ABLATIONS
from s5mars.settings.keywords import as_arguments
from s5mars.settings.networks import NETWORKS, network_options
from s5mars.settings.parsing import chosen, read_settings
from s5mars.types import Method

METHODS_GROUP = "methods"
BASELINE = "supervised"

_TAKEN = {
    "--seed": "--seeds",
    "--method": "--methods",
    "--resume": "the same compare command, which continues automatically",
    "--print-config": "s5mars train --print-config",
}

_OF_THE_GRID = {"method", "ablation", "seed", "labelled", "out"}


@dataclass(frozen=True)
class Row:
    """A row of the table: a method, or a variant of one."""

    name: str  # "s5mars", or "augin/efdm" for a row of an ablation
    title: str
    group: str  # rows of one group are compared: "methods", or the name of the ablation
    method: str
    ablation: str = ""  # value of ``s5mars train --ablation``
    arguments: tuple[str, ...] = ()  # options of ``s5mars train`` that the row adds
    without: frozenset[str] = frozenset()  # options that do not apply to the row
    own: Method | None = None  # object of the method, which other processes do not know


@dataclass(frozen=True)
class Cell:
    """One run of one row."""

    row: Row
    share: str  # from ``share_name``
    labelled: str  # value of ``s5mars train --labelled``
    seed: int

    @property
    def name(self) -> str:
        """Display name, e.g. ``s5mars 0.125 seed 0``."""
        return f"{self.row.name} {self.share} seed {self.seed}"

    @property
    def key(self) -> tuple[str, str, int]:
        """Unique key: row, share, seed."""
        return self.row.name, self.share, self.seed

    @property
    def path(self) -> Path:
        """Path of its run, relative to the folder of the comparison."""
        return Path("cells", self.row.name.replace("/", "-"), self.share, f"seed-{self.seed}")


def method_rows(methods: Sequence[str | Method]) -> tuple[Row, ...]:
    """Return the rows of some methods, given as names or objects, or of ``all`` of this package.

    Raises:
        UserError: if a name is unknown, or an object has the name of another method.
    """
    known = [*METHODS, *registered()]
    rows: dict[str, Row] = {}
    for each in methods:
        if not isinstance(each, str):
            name = method_name(type(each))
            if name in rows:
                raise UserError(
                    f"two methods have the name {name!r}, and each row of a table needs its own: "
                    "make a subclass with another name for one of them"
                )
            rows[name] = Row(name, title_of(type(each), name), METHODS_GROUP, name, own=each)
            continue
        for name in METHODS if each == "all" else [each]:
            if each in OF_A_NETWORK:
                raise UserError(
                    f"--methods {each}: this method needs a network of its own; compare it with "
                    "--table-vi"
                )
            if name not in known:
                near = ", ".join(nearest_first(name, known))
                raise UserError(f"unknown method {name!r}; nearest first: {near}")
            rows.setdefault(name, Row(name, method_title(name), METHODS_GROUP, name))
    return tuple(rows.values())


def ablation_rows(name: str) -> tuple[Row, ...]:
    """Return the rows of an ablation of S5Mars.

    Raises:
        UserError: if the name is unknown.
    """
    if name not in ABLATIONS:
        near = ", ".join(nearest_first(name, ABLATIONS))
        raise UserError(f"unknown ablation {name!r}; nearest first: {near}")
    return tuple(
        Row(f"{name}/{row}", row, name, ABLATED, f"{name}/{row}") for row in ABLATIONS[name].rows
    )


def share_name(labelled: str) -> str:
    """``"0.250"`` → ``"0.25"``; ``"folder/a.txt"`` → ``"list-a"``.

    Raises:
        UserError: if it is a number outside (0, 1].
    """
    fraction = as_fraction(labelled)
    return f"list-{Path(labelled).stem}" if fraction is None else f"{fraction:g}"


def cells_of(rows: Sequence[Row], labelled: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Return the cells seed by seed, so that a stopped comparison has complete seeds.

    Raises:
        UserError: if two list files have the same name, or a seed is negative.
    """
    shares: dict[str, str] = {}
    for value in labelled:
        name = share_name(value)
        other = shares.setdefault(name, value)
        if other == value or (as_fraction(other) or 0) == as_fraction(value):
            continue
        if as_fraction(value) is None:
            raise UserError(f"{other} and {value} have the same name; rename one of them")
        raise UserError(f"--labelled {other} and {value} are too close to each other; give one")
    for seed in seeds:
        require_limit("at least 0", **{"--seeds": seed})
    return [
        Cell(row, name, value, seed)
        for seed in dict.fromkeys(seeds)
        for name, value in shares.items()
        for row in rows
    ]


def with_files_read(arguments: Sequence[str], methods: Collection[str]) -> list[str]:
    """Replace ``--config FILE`` by the options in the file, so that each row gets its own.

    They come first, because other options override them, as in ``train``.

    What the comparison sets itself (method, ablation, seed, share and folder) and the settings of
    other ``methods`` are left out, so that the ``config.yaml`` of a run is a settings file.

    Raises:
        UserError: if a file has another content than options with values, or cannot be read.
    """
    known = {*METHODS, *OF_A_NETWORK, *registered()}
    groups = {*known, *(kind.group for kind in NETWORKS)}
    of_files: list[str] = []
    words: list[str] = []
    for option in _options(arguments):
        name, _, value = option[0].partition("=")
        if name != "--config":
            words += option
            continue
        files = [value] if value else option[1:]
        if len(files) != 1:
            raise UserError(f"--config must be given one file (got {' '.join(files) or 'none'})")
        path = Path(files[0])
        for key, found in read_settings(path).items():
            if key in _OF_THE_GRID or (key in known and key not in methods):
                continue
            if key in groups and not isinstance(found, dict):
                raise UserError(f"{path}: {key} is {found!r}: expected a group of options")
            of_files += as_arguments({key: _with_null(found)})
    return [*of_files, *words]


def _with_null(value: Any) -> Any:
    """The value with the word for None, so that an option without a value is checked, too."""
    if isinstance(value, dict):
        return {key: _with_null(inner) for key, inner in value.items()}
    return "null" if value is None else value


def refuse_options_of_others(rows: Sequence[Row], arguments: Sequence[str]) -> None:
    """Check that every option of a method or a network applies to a row.

    Raises:
        UserError: if one does not.
    """
    unused = set.intersection(*({*_of_others(row, arguments)} for row in rows))
    for option in _options(arguments):
        if option[0] in unused:
            name = option[0].partition("=")[0]
            owner = name.removeprefix("--").partition(".")[0]
            raise UserError(f"{name} has no effect, because no row uses {owner}: leave it out")


def _of_others(row: Row, arguments: Sequence[str]) -> list[str]:
    """The first words of the options of methods and networks that the row does not use."""
    model = chosen([*arguments, *row.arguments]).model
    owners = {*METHODS, *OF_A_NETWORK, *registered(), *(kind.group for kind in NETWORKS)}
    others = owners - {row.method, network_options(model).group}
    return [
        option[0]
        for option in _options(arguments)
        if "." in option[0].partition("=")[0]
        and option[0].removeprefix("--").partition(".")[0].replace("-", "_") in others
    ]


def arguments_of(row: Row, arguments: Sequence[str]) -> list[str]:
    """Return the arguments that apply to this row, without those of other methods and networks.

    Raises:
        UserError: if an option is one that the grid itself sets.
    """
    others = _of_others(row, arguments)
    kept: list[str] = []
    for option in _options(arguments):
        name = option[0].partition("=")[0].replace("_", "-")
        if name in _TAKEN:
            raise UserError(f"compare does not accept {name}; use {_TAKEN[name]}")
        if option[0] not in others and name not in row.without:
            kept += option
    return [*kept, *row.arguments]


def _options(arguments: Iterable[str]) -> Iterator[list[str]]:
    option: list[str] = []
    for word in arguments:
        if word.startswith("--") and option:
            yield option
            option = []
        option.append(word)
    if option:
        yield option
