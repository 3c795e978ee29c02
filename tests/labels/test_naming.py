"""Labels become classes; and the commands of the page on labels run as they stand there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from labels import exports
from labels.exports import blocks
from s5mars.classes import MaskCoding, Taxonomy
from s5mars.cli import main
from s5mars.data.layouts.plain import read_description, write_description
from s5mars.errors import UserError
from s5mars.labels.cvat_masks import voc_colour
from s5mars.labels.naming import Classes

PAGE = Path(__file__).resolve().parents[2] / "docs" / "labelling.md"


def test_colours_differ_and_none_is_black() -> None:
    classes = Classes({f"label {k}": (9, 9, 9) if k % 2 else None for k in range(200)})
    colours = [each.colour for each in classes.taxonomy("x").classes]
    assert len(set(colours)) == 200
    assert (0, 0, 0) not in colours
    assert colours[1] == (9, 9, 9)


def test_usual_names_keep_their_usual_colours() -> None:
    found = Classes({"gravel": None, "Big Rock": None, "sky": None}).taxonomy("x").classes
    assert [each.colour for each in found[1:]] == [(220, 60, 60), (100, 200, 255)]
    assert "a wheel cannot climb" in found[1].criterion


def test_labels_are_merged_renamed_and_swapped() -> None:
    classes = Classes({"a": None, "b": None, "c": None}, ["b=a", "a=b", "x= c , d"])
    assert [classes.index(label) for label in ("a", "b", "c", " d ", "e")] == [1, 0, 2, 2, 3]
    assert classes.taxonomy("x").names == ("a", "b", "x", "e")


def test_a_mask_holds_254_classes() -> None:
    classes = Classes({str(k): None for k in range(254)})
    with pytest.raises(UserError, match="more than 254 labels; merge some"):
        classes.index("one more")


def test_the_first_colours_of_voc() -> None:
    """As in the development kit of Pascal VOC."""
    assert [voc_colour(k) for k in (0, 1, 2, 3, 8, 21)] == [
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (64, 0, 0), (128, 64, 128),
    ]  # fmt: skip


def test_a_description_is_read_back(tmp_path: Path) -> None:
    taxonomy = Taxonomy.from_dict(
        {
            "name": "yes: no",
            "classes": [
                {"name": "no", "color": "#010203", "criterion": "é: # all"},
                {"name": "10", "color": "#040506"},
            ],
        }
    )
    coding = MaskCoding({3: 0, 7: 0, 1: 1}, frozenset({0, 255}))
    write_description(tmp_path / "dataset.yaml", taxonomy, coding)
    assert read_description(tmp_path / "dataset.yaml") == (taxonomy, coding)


def test_the_commands_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the prediction, whose maps are written here."""
    from labels.test_export import write_maps

    text = PAGE.read_text(encoding="utf-8").partition("## Labels from other tools")[2]
    (block,) = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    commands = [shlex.split(line)[1:] for line in block.splitlines()]
    assert [words[0] for words in commands] == [
        "import", "stats", "predict", "export-labels", "import",
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    names = [f"{k}" for k in range(4)]
    exports.photos(tmp_path / "photos", [f"{name}.jpg" for name in names])
    exports.pack(tmp_path / "export.zip", exports.cvat_masks({n: blocks(int(n)) for n in names}))
    for words in commands:
        if words[0] == "predict":
            write_maps(tmp_path, {name: np.uint8(blocks(int(name)) - 1) for name in names})
            continue
        if words[1] == "corrected.zip":
            shutil.copy("to_correct/annotations.zip", "corrected.zip")
        assert main(words) == 0, capsys.readouterr().err
    assert read_description(Path("data/dataset.yaml"))[0].names == ("rock", "soil")
    assert "soil" in read_description(Path("data2/dataset.yaml"))[0].names
