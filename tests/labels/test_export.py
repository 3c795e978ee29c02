"""``s5mars export-labels``: maps come back from each tool exactly, the least confident first."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from labels import exports
from s5mars.classes import Class, Taxonomy
from s5mars.cli import main
from s5mars.data.layouts import open_dataset
from s5mars.data.read import read_label
from s5mars.models.checkpoint import save_model
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.predict.index import FOOTER, _schema, class_columns
from s5mars.predict.overlay import indexed_png

CLASSES = Taxonomy(
    "mine",
    (
        Class("soil", (160, 82, 45)),
        Class("big rock", (160, 82, 45)),  # the colour of another class
        Class("shadow", (0, 0, 0)),  # the colour of unpainted pixels
        Class("sky, hazy", (255, 255, 255)),
    ),
)
CONFIDENCE = {"a": 0.9, "sol12/b": 0.3, "sol13/b": None, "n.m": 0.5}
FORMATS = ("cvat", "labelme", "coco")


def write_maps(root: Path, labels: dict[str, np.ndarray], taxonomy: Taxonomy = CLASSES) -> Path:
    """A folder as ``predict`` leaves it, without a network."""
    rows: list[dict[str, Any]] = []
    schema = _schema(class_columns(taxonomy))
    for name, mask in labels.items():
        path = root / "maps" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        indexed_png(mask, taxonomy).save(path)
        image = root / "photos" / f"{name}.jpg"
        row = dict.fromkeys(schema.names) | {
            "name": name, "image": f"{name}.jpg", "path": str(image), "status": "done",
            "mean_confidence": CONFIDENCE.get(name),
        }  # fmt: skip
        rows.append(row)
    footer = json.dumps({"taxonomy": taxonomy.to_dict()})
    table = pa.Table.from_pylist(rows, schema.with_metadata({FOOTER: footer}))
    pq.write_table(table, root / "maps" / "index.parquet")
    return root / "maps"


@pytest.fixture
def labels() -> dict[str, np.ndarray]:
    """Blocks of all classes and of none (255); the last map has one class everywhere."""
    made = {name: exports.blocks(k, labels=4) - 1 for k, name in enumerate(CONFIDENCE)}
    assert all((mask == 255).any() for mask in made.values())
    made["n.m"] = np.full_like(made["n.m"], 3)
    return made


@pytest.fixture
def maps(tmp_path: Path, labels: dict[str, np.ndarray]) -> Path:
    exports.photos(tmp_path / "photos", [f"{name}.jpg" for name in labels])
    return write_maps(tmp_path, labels)


def export(maps: Path, form: str, *options: str) -> Path:
    out = maps.parent / f"to_{form}"
    assert main(["export-labels", str(maps), "--to", form, "--out", str(out), *options]) == 0
    return out


@pytest.mark.parametrize("form", FORMATS)
def test_a_round_trip_is_exact(
    form: str,
    maps: Path,
    labels: dict[str, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = export(maps, form)
    result = {"cvat": out / "annotations.zip", "labelme": out}.get(
        form, out / "instances_default.json"
    )
    assert str(result) in capsys.readouterr().out
    back = tmp_path / "back"
    arguments = ["import", str(result), "--images", str(tmp_path / "photos"), "--out", str(back)]
    # A labelme file has no list of classes.
    assert main([*arguments, "--classes", str(out / "dataset.yaml")]) == 0
    said = capsys.readouterr()
    assert said.err == "" and not caplog.messages
    data = open_dataset(back)
    assert data.taxonomy.names == CLASSES.names
    assert len({each.colour for each in data.taxonomy.classes}) == len(CLASSES)
    for name, mask in labels.items():
        np.testing.assert_array_equal(read_label(data.sample(name), data.coding), mask)


@pytest.mark.parametrize("form", FORMATS)
def test_the_least_confident_comes_first(form: str, maps: Path, tmp_path: Path) -> None:
    out = export(maps, form)
    rows = list(csv.DictReader((out / "order.csv").open()))
    assert [row["name"] for row in rows] == ["sol12/b", "n.m", "a", "sol13/b"]
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["mean_confidence"] for row in rows] == ["0.3000", "0.5000", "0.9000", ""]
    files = [row["image"] for row in rows]
    if form == "cvat":
        with zipfile.ZipFile(out / "annotations.zip") as archive:
            listed = archive.read("ImageSets/Segmentation/default.txt").decode().split()
        assert listed == [row["name"] for row in rows]
    if form == "coco":
        content = json.loads((out / "instances_default.json").read_text())
        assert [image["file_name"] for image in content["images"]] == files
    images = out if form == "labelme" else out / "images"
    for name in files:
        assert (images / name).samefile(tmp_path / "photos" / name)


def test_only_the_first_ones(maps: Path) -> None:
    out = export(maps, "labelme", "--top", "2")
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.json")) == [
        "n.m.json", "sol12/b.json",
    ]  # fmt: skip
    content = json.loads((out / "sol12" / "b.json").read_text())
    assert content["imagePath"] == "b.jpg"
    assert (content["imageHeight"], content["imageWidth"]) == (30, 40)
    assert {shape["shape_type"] for shape in content["shapes"]} == {"mask"}


def test_colours_of_cvat_differ_from_each_other_and_from_black(maps: Path) -> None:
    with zipfile.ZipFile(export(maps, "cvat") / "annotations.zip") as archive:
        lines = archive.read("labelmap.txt").decode().splitlines()
        objects = {name for name in archive.namelist() if name.startswith("SegmentationObject/")}
    assert lines[1] == "background:0,0,0::"
    assert len({line.split(":")[1] for line in lines[1:]}) == len(CLASSES) + 1
    assert len(objects) == 4


def test_maps_of_a_prediction(tmp_path: Path) -> None:
    """From images to maps to a tool and back, with the commands alone."""
    images = exports.photos(tmp_path / "photos", ["a.jpg", "b/c.png", "d.tif"], size=(64, 48))
    torch.manual_seed(0)
    network = DeepLabV3Plus("mobilenetv3_small_050", len(CLASSES), weights="none").eval()
    run, maps = tmp_path / "run", tmp_path / "maps"
    save_model(run / "best.safetensors", {"student": network}, taxonomy=CLASSES, training={})
    words = ["predict", str(run), str(images), "--out", str(maps), "--device", "cpu"]
    assert main(words) == 0
    out = export(maps, "cvat")
    back = tmp_path / "back"
    arguments = ["import", str(out / "annotations.zip"), "--images", str(out / "images")]
    assert main([*arguments, "--out", str(back)]) == 0
    for name in ("a", "b/c", "d"):
        np.testing.assert_array_equal(
            np.asarray(Image.open(back / "masks" / f"{name}.png")),
            np.asarray(Image.open(maps / f"{name}.png")),
        )


@pytest.mark.parametrize("form", FORMATS)
def test_images_of_one_name_in_several_folders(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [exports.photos(tmp_path / name, ["1.jpg"], size=(64, 48)) for name in "abc"]
    for seed, folder in enumerate(inputs):
        exports.photo(seed, (64, 48)).save(folder / "1.jpg")
    torch.manual_seed(0)
    network = DeepLabV3Plus("mobilenetv3_small_050", len(CLASSES), weights="none").eval()
    run, maps = tmp_path / "run", tmp_path / "maps"
    save_model(run / "best.safetensors", {"student": network}, taxonomy=CLASSES, training={})
    words = ["predict", str(run), *map(str, inputs), "--out", str(maps), "--device", "cpu"]
    assert main(words) == 0
    out = export(maps, form)
    result = {"cvat": out / "annotations.zip", "coco": out / "instances_default.json"}
    images = out if form == "labelme" else out / "images"
    back = tmp_path / "back"
    arguments = ["import", str(result.get(form, out)), "--images", str(images), "--out", str(back)]
    capsys.readouterr()
    assert main([*arguments, "--classes", str(out / "dataset.yaml")]) == 0
    assert "occurs twice" not in capsys.readouterr().err
    rows = list(csv.DictReader((out / "order.csv").open()))
    assert {row["image"] for row in rows} == {"1.jpg", "1~2.jpg", "1~3.jpg"}
    for row in rows:
        np.testing.assert_array_equal(
            np.asarray(Image.open((back / "masks" / row["image"]).with_suffix(".png"))),
            np.asarray(Image.open(maps / f"{row['name']}.png")),
        )


def test_what_is_missing_is_told(
    maps: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "photos" / "a.jpg").unlink()
    (maps / "n.m.png").write_bytes(b"no picture")
    exports.photo(1, (50, 60)).save(tmp_path / "photos" / "sol13" / "b.jpg")
    out = export(maps, "coco")
    said = capsys.readouterr()
    lines = (out / "warnings.txt").read_text().splitlines()
    assert len(lines) == 3
    assert "not an image" in lines[0]
    assert "photos/a.jpg: no such file" in lines[1]
    assert "50×60 pixels, but its map has 40×30; predict it again" in lines[2]
    assert set(lines) <= set(caplog.messages)
    assert "labels of 1 image" in said.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "voc"], "--to must be one of cvat, labelme, coco (got 'voc')"),
        (["--to", "coco", "--top", "0"], "--top must be at least 1 (got 0)"),
    ],
)
def test_wrong_options(
    options: list[str], message: str, maps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export-labels", str(maps), "--out", str(maps.parent / "out"), *options]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_nothing_to_export(maps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in maps.rglob("*.png"):
        path.unlink()
    arguments = ["export-labels", str(maps), "--to", "cvat", "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "run s5mars predict with --write labels" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["export-labels", str(tmp_path), *arguments[2:]]) == 2
    assert "`s5mars predict` writes it" in capsys.readouterr().err


def test_a_name_that_a_label_map_cannot_hold(tmp_path: Path) -> None:
    taxonomy = Taxonomy("x", (Class("rock: big", (1, 2, 3)),))
    exports.photos(tmp_path / "photos", ["a.jpg"])
    maps = write_maps(tmp_path, {"a": np.zeros((30, 40), np.uint8)}, taxonomy)
    arguments = ["export-labels", str(maps), "--to", "cvat", "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert export(maps, "coco").is_dir()


def test_an_index_that_leads_out_of_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exports.photos(tmp_path / "photos", ["a.jpg"])
    maps = write_maps(tmp_path, {"a": np.zeros((30, 40), np.uint8)})
    table = pq.read_table(maps / "index.parquet")
    names = table.schema.get_field_index("name")
    evil = table.set_column(names, table.schema.field(names), [["../../evil"]])
    pq.write_table(evil, maps / "index.parquet")
    arguments = ["export-labels", str(maps), "--to", "coco", "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "is not a file name inside its folder" in capsys.readouterr().err
