"""Results are read from the folders of runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s5mars.comparison.results import read_scores
from s5mars.errors import DamagedFileError
from s5mars.files.run_folder import evaluation_path


def test_a_damaged_list_of_labels_is_named(tmp_path: Path) -> None:
    facts = {
        "seconds": 1,
        "pool_crops": 0,
        "labelled_images": 1,
        "encoder_weights": "",
        "notes": [],
    }
    metrics = {**facts, "history": [], "best": {"step": 4}}
    scores = {"mIoU": 1, "mAcc": 1, "pixel_accuracy": 1, "classes": {}}
    protocol = {"network": "teacher", "images": 1}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    scored = evaluation_path(tmp_path, split="test", protocol="full")
    scored.write_text(json.dumps({**scores, "protocol": protocol}))
    listed = tmp_path / "splits" / "labelled.txt"
    listed.parent.mkdir()
    listed.write_text("sol_001\n")
    assert read_scores(tmp_path, split="test", protocol="full")["best_step"] == 4
    listed.write_bytes(b"\xff\xfe\n")
    with pytest.raises(DamagedFileError, match=r"labelled\.txt"):
        read_scores(tmp_path, split="test", protocol="full")
