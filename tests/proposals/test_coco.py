from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as npst
from pycocotools import mask as coco_mask

from s5mars.errors import UserError
from s5mars.proposals.coco import export_json, import_json
from s5mars.proposals.proposal import run_lengths
from s5mars.proposals.store import ObjectStore, write_store

from .masks import proposal, rectangle

MASKS = npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=60))


def uncompressed(mask):
    """COCO's uncompressed runs, counted one pixel at a time."""
    runs, value = [0], False
    for pixel in mask.ravel(order="F"):
        if bool(pixel) != value:
            runs.append(0)
            value = not value
        runs[-1] += 1
    return runs


def entry(mask, *, compressed=True, **extra):
    counts = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
    return {
        "segmentation": {
            "size": list(mask.shape),
            "counts": counts if compressed else uncompressed(mask),
        },
        "predicted_iou": 0.98,
        "area": int(mask.sum()),
        **extra,
    }


def write(folder, name, content):
    file = folder / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


@settings(deadline=None, max_examples=200)
@given(mask=MASKS)
def test_run_lengths_are_those_of_coco(mask):
    counts = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    assert run_lengths(counts).tolist() == uncompressed(mask)


def test_long_runs_too():
    mask = rectangle(700, 3, 900, 1100, size=(1200, 1800))
    counts = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    assert run_lengths(counts).tolist() == uncompressed(mask)


def test_both_kinds_of_counts_and_both_kinds_of_files(tmp_path):
    masks = [rectangle(5, 6, 20, 10), rectangle(30, 20, 11, 12)]
    write(tmp_path / "json", "a", [entry(m, stability_score=0.5) for m in masks])
    write(tmp_path / "json", "sol/b", [entry(m, compressed=False) for m in masks])
    write(tmp_path / "json", "c", {"image": {}, "annotations": [entry(masks[1])]})
    write(tmp_path / "json", "empty", [])

    store = import_json(tmp_path / "json", tmp_path / "out.parquet")

    assert set(store.names) == {"a", "sol/b", "c", "empty"}
    for name in ("a", "sol/b"):
        for stored, mask in zip(store.proposals(name), masks, strict=True):
            np.testing.assert_array_equal(stored.mask, mask)
            assert stored.area == mask.sum()
            assert stored.predicted_iou == 0.98
            assert stored.proposer == "sam"
    assert store.proposals("a")[0].stability == 0.5
    assert store.proposals("a")[0].box == (5, 6, 20, 10)
    assert len(store.proposals("empty")) == 0


@pytest.mark.parametrize("proposer", ["sam", "graph"])
def test_export_and_import_give_the_same_store(tmp_path, proposer):
    rng = np.random.default_rng(0)
    rows = [
        (
            f"x/{k}",
            [
                replace(proposal(rng.random((40, 30)) < 0.4, confidence=0.9), proposer=proposer)
                for _ in range(k)
            ],
        )
        for k in range(4)
    ]
    write_store(tmp_path / "a.parquet", rows, proposer=proposer)

    assert export_json(ObjectStore(tmp_path / "a.parquet"), tmp_path / "json") == 4
    again = import_json(tmp_path / "json", tmp_path / "b.parquet")

    assert {name: list(again.proposals(name)) for name in again.names} == dict(rows)
    assert again.proposer == proposer


GOOD = entry(rectangle(5, 6, 20, 10))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"masks": []}, "annotations"),
        ([{"predicted_iou": 0.9}], "missing 'segmentation'"),
        ([{"segmentation": GOOD["segmentation"]}], "missing 'predicted_iou'"),
        ([{"segmentation": [[1, 2, 3, 4, 5, 6]], "predicted_iou": 1}], "polygons"),
        ([GOOD, {**GOOD, "segmentation": {"size": [10, 10], "counts": [5, 5]}}], "mask 1.*10×10"),
        ([{**GOOD, "segmentation": {"size": [10, 10], "counts": [120, -20]}}], "must be integers"),
        (
            [{**GOOD, "segmentation": {"size": [10, 10], "counts": [50.5, 49.5]}}],
            "must be integers",
        ),
        ([{**GOOD, "segmentation": {"size": [-10, -10], "counts": [100]}}], "must be integers"),
        ([{**GOOD, "segmentation": {"size": [1 << 20, 1 << 20], "counts": [1 << 40]}}], "pixels"),
        ([{**GOOD, "segmentation": {"size": [True, 1], "counts": [1]}}], "must be integers"),
        ([{**GOOD, "segmentation": {"size": 10, "counts": [1]}}], "mask 0"),
        (
            [{**GOOD, "predicted_iou": float("nan")}],
            "'predicted_iou' and 'stability_score' must be finite",
        ),
        ([{**GOOD, "segmentation": {**GOOD["segmentation"], "counts": "~~~"}}], "run-length"),
        ([{**GOOD, "segmentation": {**GOOD["segmentation"], "size": [60, 81]}}], "60×81"),
        ([GOOD, entry(rectangle(0, 0, 5, 5, size=(9, 9)))], "must have the same size"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, content, message):
    write(tmp_path / "json", "good", [GOOD])
    write(tmp_path / "json", "odd", content)

    with pytest.raises(ValueError, match=rf"odd\.json.*{message}"):
        import_json(tmp_path / "json", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_name_that_is_not_utf_8_is_that_of_the_image(tmp_path):
    write(tmp_path / "json", os.fsdecode(b"d\xfcne"), [GOOD])
    assert import_json(tmp_path / "json", tmp_path / "a.parquet").names == ("d%FCne",)


def test_no_json_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        import_json(tmp_path / "nothing", tmp_path / "out.parquet")
    with pytest.raises(FileNotFoundError, match=r"no \*\.json"):
        import_json(tmp_path, tmp_path / "out.parquet")
    (tmp_path / "x.json").write_text("[{")
    with pytest.raises(ValueError, match=r"x\.json: damaged JSON file"):
        import_json(tmp_path, tmp_path / "out.parquet")


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x"])
def test_a_store_of_a_stranger_writes_nothing_elsewhere(name, tmp_path):
    write_store(tmp_path / "a.parquet", [(name, [])], proposer="sam")
    with pytest.raises(UserError, match=r"a\.parquet: .* is not a file name inside its folder"):
        export_json(ObjectStore(tmp_path / "a.parquet"), tmp_path / "json" / "deep")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
