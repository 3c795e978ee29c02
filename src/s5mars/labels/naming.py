"""From the labels of a tool to the classes of a data set: merged, renamed, coloured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from s5mars.classes import IGNORE, Colour, Taxonomy, require_printable, without_controls
from s5mars.data.layouts.plain import read_description
from s5mars.errors import UserError, did_you_mean

LEFT_OUT = "ignore"
"""The class name for labels whose pixels are ignored."""


class Classes:
    """Gives each label the index of its class, in the order of first appearance.

    Control characters of a label count as spaces, and ``replaced`` has the labels with some.

    Args:
        labels: labels that the export declares, with their colours, in order.
        renamed: entries ``"class=label,label"`` or ``"class"``, which come before them. The class
            ``ignore`` stands for no class. Labels that no entry names keep their names. An entry
            ``PATH.yaml`` stands for the classes and colours of a dataset.yaml, which come first.

    Raises:
        UserError: if an entry is not of this form, or names a label twice, or a ``dataset.yaml``
            is wrong.
        MissingFileError: if a ``dataset.yaml`` is missing.
    """

    def __init__(self, labels: Mapping[str, Colour | None], renamed: Sequence[str] = ()) -> None:
        files = [entry for entry in renamed if entry.lower().endswith((".yaml", ".yml"))]
        first: dict[str, Colour | None] = {
            each.name: each.colour
            for file in files
            for each in read_description(Path(file))[0].classes
        }
        renamed = [entry for entry in renamed if entry not in files]
        self.replaced: dict[str, str] = {}  # labels with control characters → without
        declared = {self._clean(label): colour for label, colour in labels.items()}
        self._declared = first | declared | first
        self._class_of = {self._clean(label): name for label, name in _parsed(renamed).items()}
        self._expected = {old for old, new in self._class_of.items() if old != new}
        self._expected -= self._declared.keys()
        self._index: dict[str, int] = {}
        for name in (*first, *self._class_of.values(), *self._declared):
            self.index(name)

    def index(self, label: str) -> int:
        """The index of a label's class; 255 if the label is left out. Outer blanks do not count."""
        label = self._clean(label)
        self._expected.discard(label)
        name = self._class_of.get(label, label)
        if name == LEFT_OUT:
            return IGNORE
        if name not in self._index:
            if len(self._index) + 1 >= IGNORE:
                raise UserError(
                    f"more than {IGNORE - 1} labels; merge some with --classes 'class=label,label'"
                )
            self._index[name] = len(self._index)
        return self._index[name]

    def _clean(self, label: str) -> str:
        label = label.strip()
        clean = without_controls(label)
        if clean != label:
            self.replaced[label] = clean
        return clean

    def taxonomy(self, name: str) -> Taxonomy:
        """The classes so far, in the first colour of their labels that no class before has.

        Raises:
            UserError: if there is none.
        """
        colours: list[Colour | None] = []
        for each in self._index:
            labels = (each, *(old for old, new in self._class_of.items() if new == each))
            wanted = (self._declared.get(label) for label in labels)
            colours.append(next((c for c in wanted if c not in (None, *colours)), None))
        return Taxonomy.of_names(name, list(self._index), colours)

    @property
    def not_found(self) -> list[str]:
        """Labels that ``renamed`` names and nothing has used."""
        return sorted(self._expected)

    def hint(self, label: str) -> str:
        """``"; did you mean 'rock'?"`` for a label that is misspelt; else nothing."""
        return did_you_mean(label, [*self._index, *self._declared])


def _parsed(renamed: Sequence[str]) -> dict[str, str]:
    class_of: dict[str, str] = {}
    for entry in renamed:
        name, equals, old = entry.partition("=")
        name = name.strip()
        require_printable([name])
        labels = [label.strip() for label in old.split(",")] if equals else [name]
        if not name or not all(labels):
            raise UserError(
                f"--classes needs entries such as 'rock=big rock,boulder' (got {entry!r})"
            )
        for label in labels:
            if class_of.setdefault(label, name) != name:
                raise UserError(
                    f"--classes puts {label!r} into {class_of[label]!r} and {name!r}; name it once"
                )
    return class_of
