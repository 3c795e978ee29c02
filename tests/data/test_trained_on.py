"""Which images a model was trained on."""

from __future__ import annotations

from pathlib import Path

from s5mars.classes import Class, MaskCoding, Taxonomy
from s5mars.data.dataset import Dataset
from s5mars.data.trained_on import labelled_names


def test_images_of_another_data_set_may_have_the_same_names(tmp_path: Path) -> None:
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "labelled.txt").write_text("0001\n0002\n")
    taxonomy = Taxonomy("mars", (Class("sand", (9, 9, 9)), Class("rock", (90, 9, 9))))
    dataset = Dataset(tmp_path / "data", "plain", taxonomy, MaskCoding.identity(2), {})
    assert labelled_names(tmp_path, {"dataset": "mars"}, dataset) == {"0001", "0002"}
    assert labelled_names(tmp_path, {"dataset": "moon"}, dataset) == set()
