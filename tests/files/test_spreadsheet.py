"""What a user opens with a spreadsheet computes nothing there."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from predict.folders import save
from predict.standin import Brightness
from s5mars.classes import Taxonomy
from s5mars.files.spreadsheet import csv_text
from s5mars.predict.archive import predict_images
from s5mars.predict.find import find
from s5mars.predict.predictor import Predictor


@pytest.mark.parametrize("text", ["=1+1", "+a", "-2+3+cmd|' /C calc'!A0", "@sum", "\t=1"])
def test_formulas_become_text(text: str) -> None:
    (row,) = csv.reader(io.StringIO(csv_text([[text]]), newline=""))
    assert row == [f"'{text}"]


def test_everything_else_stays() -> None:
    fields = ["a", "", None, -1.5, "-1.5", "+3e-4", "-inf", 7, "a=b", 'a,"b"', "a\nb"]
    (row,) = csv.reader(io.StringIO(csv_text([fields])))
    assert row == ["" if field is None else str(field) for field in fields]


def test_what_is_written_of_an_archive(tmp_path: Path) -> None:
    classes = [{"name": "=dark"}, {"name": "@bright"}, {"name": "none"}]
    taxonomy = Taxonomy.from_dict({"name": "evil", "classes": classes})
    save(tmp_path / "in" / "=cmd.png")
    predictor = Predictor(Brightness(), taxonomy)
    out = tmp_path / "maps"
    predict_images(predictor, [tmp_path / "in"], out=out, write=["labels"])
    found = find(out, "height > 0").text("csv")
    for text in ((out / "summary.csv").read_text(), found):
        fields = np.concatenate(list(csv.reader(io.StringIO(text))))
        assert "'=cmd.png" in fields
        assert not [field for field in fields if field.startswith(("=", "@", "+"))]
