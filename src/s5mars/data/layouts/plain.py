"""The plain folder: ``images/``, ``masks/``, ``dataset.yaml``; optional lists and extra images.

``dataset.yaml`` names the classes in the order of their index::

    name: my_mars
    ignore: [255]
    classes:
      - {name: soil, ids: [0], color: "#a0522d"}
      - {name: sky, ids: [6, 7], color: "#64c8ff", criterion: "above the horizon"}

``ids`` are the values in the mask files (default: the position in the list); ``color`` and
``criterion`` are optional. ``splits/{train,val,test}.txt`` contain one name per line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from s5mars.classes import IGNORE, MaskCoding, Taxonomy, hex_colour, require_printable
from s5mars.data.dataset import Dataset
from s5mars.data.layouts.files import left_out, paired_samples, unlabelled_samples
from s5mars.data.layouts.splitting import read_splits
from s5mars.errors import MissingFileError, UserError, did_you_mean
from s5mars.files import write_text
from s5mars.files.reading import read_yaml

SIGNATURE = "images/ and masks/ with dataset.yaml (optional: unlabelled/, splits/*.txt)"

DESCRIPTION = "dataset.yaml"


def missing(root: Path) -> list[str]:
    """List what the folder lacks to be a plain data set, apart from the description."""
    return [f"{name}/" for name in ("images", "masks") if not (root / name).is_dir()]


def check(root: Path) -> None:
    """Raise what ``read`` raises about the description and about the names of the masks."""
    read_description(root / DESCRIPTION)
    paired_samples(root / "images", root / "masks")


def read(root: Path, *, lists: Path | None = None) -> Dataset:
    """Read a plain folder; raises as ``open_dataset``."""
    taxonomy, coding = read_description(root / DESCRIPTION)
    samples = paired_samples(root / "images", root / "masks")
    splits = read_splits(root, samples, taxonomy, coding, lists=lists)
    unlabelled = unlabelled_samples(root / "unlabelled")
    clashes = sorted({sample.name for sample in unlabelled} & samples.keys())
    if clashes:
        raise UserError(
            f"{root / 'images' / clashes[0]}: unlabelled/ contains the same name: rename one"
        )
    spare, unlisted = left_out(samples, splits)
    return Dataset(
        root, "plain", taxonomy, coding, splits, (*spare, *unlabelled), unlisted=unlisted
    )


def read_description(path: Path) -> tuple[Taxonomy, MaskCoding]:
    """Read ``dataset.yaml``: the classes and the meaning of the ids in mask files.

    Raises:
        MissingFileError: if it does not exist; the message shows its content.
        UserError: if it is not valid, an id is used twice, or a key is unknown.
    """
    if not path.exists():
        raise MissingFileError(
            f"{path} is missing: write it to define the classes, for example "
            "`classes: [{name: soil, ids: [0]}, {name: sky, ids: [6, 7]}]` and `ignore: [255]`"
        )
    # As text, because `yes`, `010` and `2012-08-06` are valid names.
    data = read_yaml(path, as_text=True)
    if not isinstance(data, dict):
        raise UserError(f"{path} must contain a mapping with `classes`")
    try:
        _known_keys(data, ("name", "ignore", "classes"))
        taxonomy = Taxonomy.from_dict({"name": path.resolve().parent.name, **data})
        require_printable(taxonomy.names)
        return taxonomy, _coding(data)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def description_or(
    root: Path, taxonomy: Taxonomy, coding: MaskCoding
) -> tuple[Taxonomy, MaskCoding]:
    """The classes and ids of ``dataset.yaml`` in ``root``; those given if there is none."""
    path = root / DESCRIPTION
    return read_description(path) if path.is_file() else (taxonomy, coding)


def stated_keys(path: Path, key: str) -> frozenset[str]:
    """Names of the classes of a valid ``dataset.yaml`` that have a key, such as ``"ids"``."""
    data = read_yaml(path, as_text=True)
    return frozenset(entry["name"] for entry in data["classes"] if entry.get(key))


def write_description(path: Path, taxonomy: Taxonomy, coding: MaskCoding) -> None:
    """Write ``dataset.yaml``, which ``read_description`` reads back."""
    classes = [
        {
            "name": each.name,
            "ids": sorted(k for k, value in coding.index_of.items() if value == index),
            "color": hex_colour(each.colour),
            **({"criterion": each.criterion} if each.criterion else {}),
        }
        for index, each in enumerate(taxonomy.classes)
    ]
    described = {"name": taxonomy.name, "ignore": sorted(coding.ignored), "classes": classes}
    write_text(path, yaml.safe_dump(described, sort_keys=False, allow_unicode=True))


def _coding(data: Mapping[str, object]) -> MaskCoding:
    ignored = frozenset(_ids(data.get("ignore", [str(IGNORE)]), "ignore"))
    index_of: dict[int, int] = {}
    classes = data["classes"]
    assert isinstance(classes, list)  # for the type checker: Taxonomy.from_dict has checked it
    for index, entry in enumerate(classes):
        _known_keys(entry, ("name", "ids", "color", "criterion"))
        for file_id in _ids(entry.get("ids", [str(index)]), f"ids of {entry['name']!r}"):
            if file_id in ignored:
                raise UserError(
                    f"id {file_id} of {entry['name']!r} is also in `ignore`: remove it from one of "
                    "them"
                )
            if index_of.setdefault(file_id, index) != index:
                other = classes[index_of[file_id]]["name"]
                raise UserError(
                    f"id {file_id} is in {other!r} and in {entry['name']!r}: remove it from one of "
                    "them"
                )
    return MaskCoding(index_of, ignored)


def _ids(value: Any, what: str) -> list[int]:
    values = value if isinstance(value, list) else [value]
    for each in values:
        if not isinstance(each, str) or not re.fullmatch("[0-9]{1,5}", each) or int(each) > 65535:
            raise UserError(f"{what} must be integers from 0 to 65535 (got {each!r})")
    return [int(each) for each in values]


def _known_keys(data: Mapping[str, object], known: tuple[str, ...]) -> None:
    for key in data:
        if key not in known:
            hint = did_you_mean(key, known) or f"; known keys: {', '.join(known)}"
            raise UserError(f"unknown key {key!r}{hint}")
