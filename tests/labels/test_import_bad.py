"""Bad exports: one line each, the good part is imported, and nothing is read or written outside."""

from __future__ import annotations

import json
import logging
import os
import stat
import zipfile
from logging.handlers import BufferingHandler
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labels import exports
from labels.exports import blocks
from s5mars.cli import main
from s5mars.data.layouts.plain import read_description
from s5mars.errors import UserError
from s5mars.labels import label_studio
from s5mars.labels import unpack as unpacking
from s5mars.labels.brush import decode_brush
from s5mars.labels.images import Images
from s5mars.labels.importing import import_labels
from s5mars.text.numbers import plural

GOOD = {"category_id": 10, "segmentation": exports.coco_rle(blocks(2) > 0), "iscrowd": 1}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return exports.photos(tmp_path / "photos", ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])


def coco_of(tmp_path: Path, entries: dict[str, object]) -> Path:
    path = tmp_path / "coco.json"
    path.write_bytes(exports.coco({"good.jpg": ((40, 30), [GOOD]), **entries}))  # type: ignore[dict-item]
    return path


def warnings_of(
    export: Path, images: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> list[str]:
    """Import, which succeeds; the lines of the summary's file, which are also logged."""
    exports.photos(images, ["good.jpg"])
    out = export.parent / "out"
    arguments = ["import", str(export), "--images", str(images), "--out", str(out), *options]
    logger, logged = logging.getLogger("s5mars"), BufferingHandler(1000)
    logger.addHandler(logged)
    assert main(arguments) == 0
    logger.removeHandler(logged)
    warned = [record.getMessage() for record in logged.buffer]
    said = capsys.readouterr()
    lines = (out / "warnings.txt").read_text().splitlines()
    assert plural(len(lines), "warning") in said.out
    for line in lines:
        assert line in warned
    assert (out / "masks" / "good.png").is_file()
    return [line for line in lines if "no pixel has the class" not in line]


def test_polygons_outside_the_image(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def polygon(*points: float) -> dict[str, object]:
        return {"category_id": 10, "segmentation": [list(points)], "iscrowd": 0}

    annotations = [
        polygon(-20, 5, 10, 5, 10, 15, -20, 15),
        polygon(100, 100, 120, 100, 120, 120),
        polygon(5, 20, 9e6, 20, 9e6, 9e6, 5, 9e6),
        polygon(1, 1, 2, 2),
        polygon(1, 1, float("nan"), 2, 3, 3),
        polygon(1, 1, 1e300, 2, 3, 3),
    ]
    lines = warnings_of(coco_of(tmp_path, {"a.jpg": ((40, 30), annotations)}), images, capsys)
    assert [line[:60] for line in lines] == [
        f"a.jpg: {tmp_path}/coco.json: damaged annotation 5 (soil) "[:60],
        f"a.jpg: {tmp_path}/coco.json: damaged annotation 6 (soil) "[:60],
        f"a.jpg: {tmp_path}/coco.json: damaged annotation 7 (soil) "[:60],
        "a.jpg: 2 regions (soil (2)) beyond the image, and cut at its border"[:60],
        "a.jpg: 1 region (soil) without a pixel in the image",
    ]
    assert "needs at least three points" in lines[0]
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png"))
    expected = np.full((30, 40), 255)
    expected[5:15, :10] = expected[20:, 5:] = 0
    np.testing.assert_array_equal(mask, expected)


def test_control_characters_of_a_label_are_spaces(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(exports.coco({"good.jpg": ((40, 30), [GOOD])}))
    (label,) = (c for c in document["categories"] if c["id"] == GOOD["category_id"])
    label["name"] = "ro\nck\u202e\u0000x"
    export = tmp_path / "coco.json"
    export.write_text(json.dumps(document))
    (line,) = warnings_of(export, images, capsys)
    assert line == r"the label 'ro\nck\u202e\x00x' has control characters; its class is 'ro ck x'"
    assert "ro ck x" in read_description(tmp_path / "out" / "dataset.yaml")[0].names
    with pytest.raises(UserError, match="must not contain control characters"):
        import_labels(export, images=images, out=tmp_path / "b", classes=["ro\tck=soil"])


@pytest.mark.parametrize("number", [2, 30])
def test_if_nothing_is_imported_all_reasons_are_printed(
    number: int,
    tmp_path: Path,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    exports.photos(images, ["c.png"])  # beside c.jpg, which has nothing to do with the reason
    export = tmp_path / "coco.json"
    export.write_bytes(exports.coco({f"x{k}.jpg": ((40, 30), [GOOD]) for k in range(number)}))
    out = tmp_path / "out"
    assert main(["import", str(export), "--images", str(images), "--out", str(out)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "no label could be imported from this export" in error
    assert f"; {number + 1} warnings)" in error
    assert "first warning about a label: " in error and "no image named 'x0.jpg'" in error
    assert "c.png: has the same name as c.jpg, and is left out" in caplog.messages
    assert sum("no image named" in message for message in caplog.messages) == min(number, 19)
    assert ("and 11 more" in caplog.messages) == (number == 30)
    assert not out.exists()


def test_a_part_of_a_polygon_without_an_area_leaves_the_others(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [[5, 5, 15, 5, 15, 15, 5, 15], [30, 20, 31, 20], []]
    annotation = {"category_id": 10, "segmentation": parts, "iscrowd": 0}
    lines = warnings_of(coco_of(tmp_path, {"a.jpg": ((40, 30), [annotation])}), images, capsys)
    assert lines == [
        f"a.jpg: {tmp_path}/coco.json: 2 polygon parts of 'soil' with fewer than three points; "
        "the other parts are used"
    ]
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png"))
    expected = np.full((30, 40), 255)
    expected[5:15, 5:15] = 0
    np.testing.assert_array_equal(mask, expected)


def test_masks_that_reach_beyond_the_image(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = '<mask label="soil" rle="0, 100" left="35" top="-5" width="10" height="10" z_order="0"/>'
    good = exports.cvat_mask_element(blocks(2) > 0, "soil")
    export = tmp_path / "a.xml"
    export.write_bytes(
        exports.cvat_xml({"a.jpg": ((40, 30), [mask]), "good.jpg": ((40, 30), [good])})
    )
    (line,) = warnings_of(export, images, capsys)
    assert line == "a.jpg: 1 region (soil) beyond the image, and cut at its border"
    painted = np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png")) == 0
    assert painted[:5, 35:].all()
    assert painted.sum() == 25


def test_images_of_another_size(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"category_id": 10, "segmentation": exports.coco_rle(np.ones((60, 80), bool))}
    (line,) = warnings_of(coco_of(tmp_path, {"a.jpg": ((80, 60), [wrong])}), images, capsys)
    assert line.startswith(
        "a.jpg: its labels were drawn on 80×60 pixels, but the image has 40×30; label this image"
    )
    assert not (tmp_path / "out" / "masks" / "a.png").exists()
    assert (tmp_path / "out" / "images" / "a.jpg").exists()  # it joins the pool


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
def test_images_that_exif_turns(
    orientation: int, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels drawn on the image as viewers show it stay; those on the stored one are turned."""
    stored = np.zeros((30, 40), np.uint8)
    stored[3:9, 5:30] = 1
    stored[20, 2] = 1
    exif = Image.Exif()
    exif[0x0112] = orientation
    exports.photo(5).save(images / "a.png", exif=exif)
    (images / "a.jpg").unlink()
    picture = Image.fromarray(stored)
    picture.info.clear()
    transposes = {
        3: Image.Transpose.ROTATE_180, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    shown = stored
    if orientation in transposes:
        shown = np.asarray(picture.transpose(transposes[orientation]))
    given = stored if orientation >= 5 else shown
    annotation = {"category_id": 10, "segmentation": exports.coco_rle(given == 1)}
    lines = warnings_of(coco_of(tmp_path, {"a.png": ((40, 30), [annotation])}), images, capsys)
    assert len(lines) == (orientation >= 5)
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png"))
    np.testing.assert_array_equal(mask == 0, shown == 1)


def test_an_image_that_is_cut_off(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its head is enough for the labels; the page shows another image."""
    content = (images / "a.jpg").read_bytes()
    (images / "a.jpg").write_bytes(content[: len(content) // 2])
    (line,) = warnings_of(coco_of(tmp_path, {"a.jpg": ((40, 30), [GOOD])}), images, capsys)
    assert line.startswith(str(images / "a.jpg"))
    assert line.endswith("its labels are imported")
    assert (tmp_path / "out" / "masks" / "a.png").is_file()
    assert (tmp_path / "out" / "import.html").read_text().count("data:image/") == 3


def test_unknown_labels(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = {"category_id": 99, "segmentation": exports.coco_rle(blocks(1) > 0)}
    box = {"category_id": 11, "bbox": [1, 2, 3, 4], "segmentation": []}
    entries = {"a.jpg": ((40, 30), [unknown, unknown, box])}
    lines = warnings_of(coco_of(tmp_path, entries), images, capsys)
    assert lines == [
        "a.jpg: 2 annotations of the unknown category 99",
        "a.jpg: 1 annotation of 'big rock' without a segmentation",
    ]


def test_unknown_colours(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = exports.cvat_masks({"good": blocks(1), "a": blocks(2)})
    strange = np.zeros((30, 40, 3), np.uint8)
    strange[:2] = (1, 2, 3)
    strange[5:9] = exports.COLOURS[0]
    files["SegmentationClass/a.png"] = exports.png(strange)
    (line,) = warnings_of(exports.pack(tmp_path / "x.zip", files), images, capsys)
    assert line == (
        f"a.jpg: {tmp_path}/x.zip:SegmentationClass/a.png: 80 pixels have colours of no "
        "label and are ignored: #010203 (80)"
    )


def test_what_cvat_calls_background_is_ignored_in_any_colour(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = blocks(1)
    files = exports.cvat_masks({"good": mask}, background="0,128,0")
    (line,) = warnings_of(exports.pack(tmp_path / "x.zip", files), images, capsys)
    assert "'background' has the colour of unpainted pixels and is ignored" in line
    found = np.asarray(Image.open(tmp_path / "out" / "masks" / "good.png"))
    np.testing.assert_array_equal(found == 255, mask == 0)


def test_missing_images_and_half_written_files(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = [exports.labelme_mask(blocks(2) > 0, "soil")]
    files = {
        "good.json": exports.labelme_file("good.jpg", shapes),
        "gone.json": exports.labelme_file("gone.jpg", shapes),
        "half.json": exports.labelme_file("a.jpg", shapes)[:-40],
        "other.json": b"[1, 2]",
        "sizes.json": exports.labelme_file("b.jpg", shapes, size=(-3, 30)),
    }
    lines = warnings_of(exports.unpacked(tmp_path / "lm", files), images, capsys)
    folder = tmp_path / "lm"
    assert [line.partition(": ")[0] for line in lines] == [
        f"{folder}/{name}.json" for name in ("gone", "half", "other", "sizes")
    ]
    assert "no image named 'gone.jpg'" in lines[0]
    assert "its labels are left out" in lines[0]
    assert "damaged labelme file" in lines[1]


def test_names_that_fit_several_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = exports.photos(tmp_path / "photos", ["x/a.jpg", "y/a.jpg", "z/b.jpg"])
    entries = {"a.jpg": ((40, 30), [GOOD]), "w/b.jpg": ((40, 30), [GOOD])}
    lines = warnings_of(coco_of(tmp_path, entries), images, capsys)
    assert "'a.jpg' matches 2 images, such as x/a.jpg and y/a.jpg" in lines[0]
    assert "no image named 'w/b.jpg'" in lines[1]  # z/b.jpg is of another folder


def test_an_image_that_stands_twice(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = np.zeros((2, 30, 40), bool)
    first[:10] = True
    second[5:15] = True
    for name, mask, category in (("one", first, 10), ("two", second, 11)):
        annotation = {"category_id": category, "segmentation": exports.coco_rle(mask)}
        entries = {"a.jpg": ((40, 30), [annotation]), "good.jpg": ((40, 30), [GOOD])}
        path = tmp_path / "export" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(exports.coco(entries))
    lines = warnings_of(tmp_path / "export", images, capsys)
    assert "a.jpg: occurs twice in the export; the later labels are used" in lines
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png"))
    np.testing.assert_array_equal(mask[:, 0], [0] * 5 + [1] * 10 + [255] * 15)


def test_annotations_of_label_studio_that_are_no_labels(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = exports.brush_result(blocks(2) > 0, "soil")
    turned = {**result, "image_rotation": 90}
    small = {**result, "original_width": 20}
    broken = {**result, "value": {**result["value"], "rle": result["value"]["rle"][:20]}}
    other = {**result, "value": {**result["value"], "rle": [1, 300, "x"]}}
    task = exports.label_studio_task(1, "good.jpg", [result, turned, small, broken, other])
    task["annotations"].insert(0, {"id": 1, "was_cancelled": True, "result": [result]})
    task["predictions"] = [{"result": [exports.brush_result(blocks(3) > 0, "boulder")]}]
    path = tmp_path / "ls.json"
    path.write_text(json.dumps([task, "nonsense", {"id": 3, "data": {}}]))
    lines = warnings_of(path, images, capsys)
    assert lines[0] == "good.jpg: 1 skipped annotation"
    for line, reason in zip(
        lines[1:5],
        ("turned by 90 degrees", "drawn on 20×30 pixels", "end too early", "damaged region 4"),
        strict=True,
    ):
        assert line.startswith("good.jpg: ")
        assert reason in line
    assert "damaged task 1" in lines[5]
    assert "no image named" in lines[6]
    yaml = (tmp_path / "out" / "dataset.yaml").read_text()
    assert "boulder" not in yaml  # a prediction is no label


def test_a_title_with_the_name_of_another_image(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = blocks(2)
    tasks = [
        exports.label_studio_task(k, name, exports.results_of(mask))
        for k, name in enumerate(("a.jpg", "gone.jpg", "good.jpg"))
    ]
    for task in tasks:
        del task["file_upload"]
        task["data"] = {"title": "b", "text": "n/a", **task["data"]}
    path = tmp_path / "ls.json"
    path.write_text(json.dumps(tasks))
    (line,) = warnings_of(path, images, capsys)
    assert "no image named 'data/upload/1/0a1b2c3d-gone.jpg'" in line
    assert {path.name for path in (tmp_path / "out" / "masks").iterdir()} == {"a.png", "good.png"}


def test_tasks_with_two_images(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = exports.results_of(blocks(2))
    good = exports.label_studio_task(0, "good.jpg", results)
    good["annotations"][0]["result"].append(  # its target has no pixels
        exports.shape_result("choices", {"choices": ["x"]}, (40, 30)) | {"to_name": "text"}
    )
    pair = exports.label_studio_task(1, "a.jpg", results)
    pair["data"]["right"] = "/data/upload/1/0a1b2c3e-b.jpg"
    del pair["file_upload"]
    other = exports.label_studio_task(2, "c.jpg", results)
    other["data"]["right"] = "https://mars.org/not-here.jpg"
    first, *others = other["annotations"][0]["result"]
    other["annotations"][0]["result"] = [first, *({**x, "to_name": "right"} for x in others)]
    path = tmp_path / "ls.json"
    path.write_text(json.dumps([good, pair, other]))
    lines = warnings_of(path, images, capsys)
    assert "type choices, which has no area" in lines[0]
    assert (
        "'data/upload/1/0a1b2c3d-a.jpg' and 'data/upload/1/0a1b2c3e-b.jpg' are different images"
    ) in lines[1]
    assert f"{path}: the regions of task 2 are of several images (image, right)" in lines[2]
    assert len(lines) == 3
    assert [path.name for path in (tmp_path / "out" / "masks").iterdir()] == ["good.png"]


def test_brush_pngs_without_the_names_of_images(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = exports.brush_pngs(4, blocks(1))
    folder = exports.unpacked(tmp_path / "png", files)
    out = tmp_path / "out"
    arguments = ["import", str(folder), "--images", str(images), "--out", str(out)]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "does not say which image task 4 shows; also export the project as JSON" in said


def test_brush_pngs_of_unknown_tasks_are_listed_in_order(tmp_path: Path) -> None:
    pngs = [tmp_path / f"task-{k}-annotation-1-by-1-tag-rock-0.png" for k in range(12, 0, -1)]
    notes = label_studio.read({}, [], pngs=pngs).entries()
    tasks = [str(note).partition("which image task ")[2].partition(" ")[0] for note in notes]
    assert tasks == [str(k) for k in range(1, 13)]


def test_nothing_that_can_be_read(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        "half.json": exports.coco({"a.jpg": ((40, 30), [GOOD])})[:-10],
        "empty.json": b"[]",
        "text.json": b"",
        "deep.json": b"[" * 100_000,
        "entities.xml": b'<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>',
        "half.xml": exports.cvat_xml({"a.jpg": ((40, 30), [])})[:-10],
        "video.xml": b"<annotations><track id='0' label='soil'/></annotations>",
        "no.zip": b"PK\x03\x04 not a zip",
        "empty.zip": exports.pack(tmp_path / "e.zip", {}).read_bytes(),
        "half.zip": exports.pack(tmp_path / "f.zip", {"a.json": b"[]"}).read_bytes()[:-30],
        "unlabelled.json": exports.coco({"a.jpg": ((40, 30), [])}),
        "unknown.txt": b"",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        out = tmp_path / "out"
        arguments = ["import", str(tmp_path / name), "--images", str(images), "--out", str(out)]
        assert main(arguments) == 2, name
        said = capsys.readouterr()
        assert said.err.startswith("s5mars: "), name
        assert said.err.count("\n") == 1, name
        assert str(tmp_path / name) in said.err, name
        assert not out.exists(), name
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_format_that_is_not_there(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = coco_of(tmp_path, {})
    arguments = ["import", str(export), "--images", str(images), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--from", "labelme"]) == 2
    assert "not an export of labelme" in capsys.readouterr().err
    assert main([*arguments, "--from", "voc"]) == 2
    assert (
        "--from must be one of cvat, labelstudio, labelme, coco, masks" in capsys.readouterr().err
    )
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    assert main(arguments) == 2
    assert "contains files; choose a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["../evil.json", "/tmp/evil.json", "a/../../evil.json", "..\\x.json"]
)
def test_an_archive_that_leads_out_of_its_folder(name: str, tmp_path: Path, images: Path) -> None:
    path = exports.pack(tmp_path / "x.zip", {name: b"[]"})
    with pytest.raises(UserError, match="is not a file name inside its folder"):
        import_labels(path, images=images, out=tmp_path / "out")
    assert not (tmp_path / "evil.json").exists()


def test_an_archive_with_a_link(tmp_path: Path, images: Path) -> None:
    link = zipfile.ZipInfo("a.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="is a link or a device"):
        import_labels(tmp_path / "x.zip", images=images, out=tmp_path / "out")


def test_an_archive_that_grows(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "MAX_BYTES", 1 << 20)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", bytes(3 << 20))
    with pytest.raises(UserError, match="unpacks to more than 1,048,576 bytes"):
        import_labels(path, images=images, out=tmp_path / "out")
    monkeypatch.setattr(unpacking, "MAX_FILES", 3)
    many = exports.pack(tmp_path / "y.zip", {f"{k}.json": b"" for k in range(4)})
    with pytest.raises(UserError, match="4 files, more than the 3"):
        import_labels(many, images=images, out=tmp_path / "out")


def test_names_in_an_archive_that_no_file_can_have(tmp_path: Path, images: Path) -> None:
    for names in (["a" * 300 + ".json"], ["a.json", "a.json/b.json"]):
        path = exports.pack(tmp_path / "x.zip", dict.fromkeys(names, b"[]"))
        with pytest.raises(UserError, match="cannot be the name of a file"):
            import_labels(path, images=images, out=tmp_path / "out")


def test_a_huge_mask_takes_no_memory(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    huge = {"size": [60_000, 60_000], "counts": [3_600_000_000]}
    lying = {"size": [30, 40], "counts": [10, 4_000_000_000]}
    minus = {"size": [30, 40], "counts": [1210, -10]}
    letters = {"size": [30, 40], "counts": "zz~~"}
    annotations = [
        {"category_id": 10, "segmentation": each} for each in (huge, lying, minus, letters)
    ]
    lines = warnings_of(coco_of(tmp_path, {"a.jpg": ((40, 30), annotations)}), images, capsys)
    assert len(lines) == 4
    mask = '<mask label="soil" rle="0,99" left="0" top="0" width="99999" height="99999"/>'
    export = tmp_path / "b.xml"
    export.write_bytes(exports.cvat_xml({"a.jpg": ((40, 30), [mask])}))
    with pytest.raises(UserError, match="more than the limit of"):
        import_labels(export, images=images, out=tmp_path / "other")


def test_pipes_are_not_opened(tmp_path: Path, images: Path) -> None:
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(UserError, match="named pipe"):
        import_labels(tmp_path / "x.json", images=images, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.jpg", "a.jpg"),
        ("a", "a.jpg"),
        ("a.png", "a.jpg"),
        ("../photos/a.jpg", "a.jpg"),
        ("C:\\photos\\sol12\\b.jpg", "sol12/b.jpg"),
        ("sol12/b.jpg", "sol12/b.jpg"),
        ("deep/sol13/b", "sol13/b.jpg"),
        ("c.jpg", "sol13/c.jpg"),
        ("n.m.jpg", "n.m.jpg"),
        ("n.m", "n.m.jpg"),
        ("my_photo_1.jpg", "my photo (1).jpg"),
        ("images/0a1b2c3d-a.jpg", "a.jpg"),
        ("images\\0a1b2c3d-my_photo_1.jpg", "my photo (1).jpg"),
        ("0a1b2c3d-a", "a.jpg"),
        ("upload/1/0a1b2c3d-c.jpg", "sol13/c.jpg"),
        ("20260102-d.jpg", "20260102-d.jpg"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("cafe\u0301.png", "cafe\u0301.jpg"),
        ("0a1b2c3d-cafe.jpg", "cafe\u0301.jpg"),
    ],
)
def test_finding_images(name: str, image: str, tmp_path: Path) -> None:
    files = ["a.jpg", "sol12/b.jpg", "sol13/b.jpg", "sol13/c.jpg", "n.m.jpg", "my photo (1).jpg"]
    files += ["d.jpg", "20260102-d.jpg", "cafe\u0301.jpg"]
    assert Images(exports.photos(tmp_path, files)).find([name]) == image


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a", "a.jpg"),
        ("sub/a", "sub/a.jpg"),
        ("a.jpg", "a.jpg"),
        ("deep/a", "a.jpg"),
        ("c_1", "c_1.jpg"),
    ],
)
def test_a_whole_path_is_preferred_to_its_end(name: str, image: str, tmp_path: Path) -> None:
    files = ["a.jpg", "sub/a.jpg", "c (1).jpg", "c_1.jpg"]
    images = Images(exports.photos(tmp_path, files))
    assert images.find([name]) == image
    if name != "a.jpg":
        assert images.find([], stems=[name]) == image


def test_an_upload_does_not_tell_the_folder(tmp_path: Path) -> None:
    images = Images(exports.photos(tmp_path, ["a.jpg", "sub/a.jpg"]))
    with pytest.raises(UserError, match="matches 2 images"):
        images.find(["/data/upload/1/0a1b2c3d-a.jpg"])


def test_a_name_without_an_ending(tmp_path: Path) -> None:
    images = Images(exports.photos(tmp_path, ["1.jpg", "1.jpg.jpg", "2.jpg"]))
    assert images.find([], stems=["1"]) == "1.jpg"
    assert images.find([], stems=["1.jpg"]) == "1.jpg.jpg"
    assert images.find(["2.jpg"], stems=["2.jpg"]) == "2.jpg"
    with pytest.raises(UserError, match=r"no image named '2\.jpg'"):
        images.find([], stems=["2.jpg"])


@pytest.mark.parametrize("name", ["", "..", "/", "x.jpg", "x/a.png.png", "sol14/b.jpg", "\0"])
def test_images_that_are_not_there(name: str, tmp_path: Path) -> None:
    images = Images(exports.photos(tmp_path, ["a.jpg", "sol12/b.jpg"]))
    with pytest.raises(UserError):
        images.find([name])


def test_a_number_as_a_brush_is_not_a_number_of_bytes() -> None:
    """``bytes(10**12)`` would be a terabyte of zeros."""
    with pytest.raises(TypeError):
        decode_brush(12, width=1, height=1)  # type: ignore[arg-type]


@given(st.binary(max_size=60), st.integers(1, 6), st.integers(1, 6))
def test_any_bytes_as_a_brush(data: bytes, width: int, height: int) -> None:
    header = f"{4 * width * height:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    first = [int(header[k : k + 8], 2) for k in range(0, 48, 8)]
    for coded in (list(data), first + list(data)):
        try:
            mask = decode_brush(coded, width=width, height=height)
        except ValueError:
            continue
        assert mask.shape == (height, width)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def _valid(form: str) -> object:
    mask = blocks(1)
    if form == "coco":
        polygon = {"category_id": 11, "segmentation": [[1, 2, 20, 3, 9, 25]], "iscrowd": 0}
        return json.loads(exports.coco({"a.jpg": ((40, 30), [GOOD, polygon])}))
    if form == "labelme":
        shapes = [
            exports.labelme_mask(mask == 1, "soil"),
            exports.labelme_shape("polygon", [[1, 2], [20, 3], [9, 25]], "soil"),
            exports.labelme_shape("circle", [[9, 9], [12, 9]], "soil"),
        ]
        return json.loads(exports.labelme_file("a.jpg", shapes))
    corner = {"x": 5, "y": 2, "width": 10, "height": 4, "rotation": 9, "rectanglelabels": ["soil"]}
    results = [*exports.results_of(mask), exports.shape_result("rectanglelabels", corner, (40, 30))]
    return [exports.label_studio_task(1, "a.jpg", results)]


def _places(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    if isinstance(value, dict):
        children = list(value.items())
    else:
        children = list(enumerate(value))[:30] if isinstance(value, list) else []
    return [path, *(place for key, inner in children for place in _places(inner, (*path, key)))]


def test_broken_links_among_the_images_are_left_out(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "lost.jpg").symlink_to("nowhere.jpg")
    (images / "round.jpg").symlink_to("round.jpg")
    lines = warnings_of(coco_of(tmp_path, {"lost.jpg": ((40, 30), [GOOD])}), images, capsys)
    assert lines[:2] == [
        f"{images / name}: a broken link, which is left out" for name in ("lost.jpg", "round.jpg")
    ]
    assert len(lines) == 3 and "no image named 'lost.jpg'" in lines[2]


@pytest.mark.parametrize("form", ["coco", "labelme", "labelstudio"])
@settings(max_examples=40)
@given(data=st.data())
def test_any_value_at_any_place(
    form: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A damaged export is imported in part or refused; never a traceback."""
    content = _valid(form)
    place = data.draw(st.sampled_from(_places(content)))
    value = data.draw(JSON)
    if place:
        inside = content
        for key in place[:-1]:
            inside = inside[key]  # type: ignore[index]
        inside[place[-1]] = value  # type: ignore[index]
    else:
        content = value
    folder = tmp_path_factory.mktemp("fuzz")
    exports.photos(folder / "photos", ["a.jpg"], size=(40, 30))
    (folder / "export.json").write_text(json.dumps(content))
    try:
        import_labels(
            folder / "export.json", images=folder / "photos", out=folder / "out", form=form
        )
    except UserError as error:
        assert "export.json" in str(error)
    assert {path.name for path in folder.iterdir()} <= {"photos", "export.json", "out"}


@settings(max_examples=40)
@given(
    cut=st.integers(0, 2000), flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)))
)
def test_any_bytes_in_an_archive(
    cut: int, flips: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    exports.photos(folder / "photos", ["a.jpg"])
    path = exports.pack(folder / "x.zip", exports.cvat_masks({"a": blocks(1)}))
    content = bytearray(path.read_bytes())
    for place, value in flips[:4]:
        content[place % len(content)] = value
    path.write_bytes(content[: len(content) - cut // 4 if cut % 2 else len(content)])
    try:
        import_labels(path, images=folder / "photos", out=folder / "out")
    except UserError as error:
        assert "x.zip" in str(error)
