"""``s5mars import``: each format gives the masks that were painted, and nothing that was not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from labels import exports
from labels.exports import LABELS, blocks
from s5mars.cli import main
from s5mars.data.layouts import open_dataset
from s5mars.data.layouts.plain import DESCRIPTION, read_description
from s5mars.data.read import read_label

NAMES = ("a.jpg", "sol12/b.png", "sol13/b.png")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return exports.photos(tmp_path / "photos", [*NAMES, "spare.jpg"])


@pytest.fixture
def masks() -> dict[str, np.ndarray]:
    return {name: blocks(seed) for seed, name in enumerate(NAMES)}


def run(export: Path, images: Path, *options: str, out: str = "out") -> Path:
    folder = export.parent / out
    arguments = ["import", str(export), "--images", str(images), "--out", str(folder), *options]
    assert main(arguments) == 0
    return folder


def labels_of(folder: Path) -> dict[str, np.ndarray]:
    """Name of each labelled image → (H, W) index of LABELS + 1, 0 where it is ignored."""
    data = open_dataset(folder)
    samples = [each for split in data.splits.values() for each in split]
    place = {name: LABELS.index(name) + 1 for name in data.taxonomy.names if name in LABELS}
    table = np.zeros(256, np.uint8)
    for index, name in enumerate(data.taxonomy.names):
        table[index] = place[name]
    return {each.name: table[read_label(each, data.coding)] for each in samples}


def assert_same(folder: Path, masks: dict[str, np.ndarray]) -> None:
    found = labels_of(folder)
    assert set(found) == {Path(name).with_suffix("").as_posix() for name in masks}
    for name, mask in masks.items():
        np.testing.assert_array_equal(found[Path(name).with_suffix("").as_posix()], mask)


def stems(masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {Path(name).with_suffix("").as_posix(): mask for name, mask in masks.items()}


def as_cvat_zip(path: Path, masks: dict[str, np.ndarray]) -> Path:
    return exports.pack(path / "export.zip", exports.cvat_masks(stems(masks)))


def as_cvat_palette(path: Path, masks: dict[str, np.ndarray]) -> Path:
    files = exports.cvat_masks(stems(masks), palette=True)
    return exports.unpacked(path / "export", files)


def as_cvat_xml(path: Path, masks: dict[str, np.ndarray]) -> Path:
    content = exports.cvat_xml(
        {
            name: (
                (40, 30),
                [exports.cvat_mask_element(mask == k + 1, x) for k, x in enumerate(LABELS)],
            )
            for name, mask in masks.items()
        }
    )
    return exports.pack(path / "export.zip", {"annotations.xml": content})


def as_coco(path: Path, masks: dict[str, np.ndarray]) -> Path:
    content = exports.coco({n: ((40, 30), exports.coco_of(mask)) for n, mask in masks.items()})
    return exports.pack(path / "export.zip", {"annotations/instances_default.json": content})


def as_coco_compressed(path: Path, masks: dict[str, np.ndarray]) -> Path:
    def annotations(mask: np.ndarray) -> list[dict[str, object]]:
        found = []
        for k in range(len(LABELS)):
            rle = coco_mask.encode(np.asfortranarray(mask == k + 1, np.uint8))
            coded = {"size": rle["size"], "counts": rle["counts"].decode()}
            found.append({"category_id": 10 + k, "segmentation": coded, "iscrowd": 0})
        return found

    content = exports.coco({n: ((40, 30), annotations(mask)) for n, mask in masks.items()})
    (path / "result.json").write_bytes(content)
    return path / "result.json"


def as_label_studio(path: Path, masks: dict[str, np.ndarray]) -> Path:
    tasks = [
        exports.label_studio_task(k, name.replace("/", "__"), exports.results_of(mask))
        for k, (name, mask) in enumerate(masks.items())
    ]
    for task, name in zip(tasks, masks, strict=True):
        del task["file_upload"]
        task["data"] = {"image": f"/data/local-files/?d=photos/{name}"}
    (path / "export.json").write_text(json.dumps(tasks))
    return path / "export.json"


def as_label_studio_min(path: Path, masks: dict[str, np.ndarray]) -> Path:
    tasks = []
    for k, (name, mask) in enumerate(masks.items()):
        results = exports.results_of(mask, literals=False)
        tag = [{**r["value"], "original_width": 40, "original_height": 30} for r in results]
        tasks.append({"image": f"s3://bucket/{name}", "id": k, "tag": tag, "annotator": 1})
    (path / "min.json").write_text(json.dumps(tasks))
    return path / "min.json"


def as_label_studio_pngs(path: Path, masks: dict[str, np.ndarray]) -> Path:
    files = {
        "tasks.json": json.dumps(
            [{"id": k, "data": {"image": name}} for k, name in enumerate(masks)]
        ).encode()
    }
    for k, mask in enumerate(masks.values()):
        files |= exports.brush_pngs(k, mask)
    return exports.unpacked(path / "brush", files)


def as_labelme(path: Path, masks: dict[str, np.ndarray]) -> Path:
    files = {}
    for name, mask in masks.items():
        shapes = [exports.labelme_mask(mask == k + 1, x) for k, x in enumerate(LABELS)]
        given = f"..\\photos\\{name}".replace("/", "\\")
        files[f"{Path(name).with_suffix('.json')}"] = exports.labelme_file(given, shapes)
    return exports.unpacked(path / "labelme", files)


YAML = """\
name: mine
classes:
  - {name: soil, color: "#a0522d"}
  - {name: big rock, color: "#dc3c3c"}
  - {name: boulder, color: "#000080"}
"""


def as_colours(path: Path, masks: dict[str, np.ndarray]) -> Path:
    folder = path / "coloured"
    palette = np.array([(0, 0, 0), *exports.COLOURS], np.uint8)
    for name, mask in masks.items():
        target = (folder / name).with_name(f"{Path(name).stem}_mask.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(palette[mask]).save(target)
    (folder / "dataset.yaml").write_text(YAML)
    return folder


def as_transparent_colours(path: Path, masks: dict[str, np.ndarray]) -> Path:
    """What nobody painted is transparent soil."""
    folder = path / "alpha" / "masks"
    palette = np.array([(160, 82, 45, 0), *((*c, 255) for c in exports.COLOURS)], np.uint8)
    for name, mask in masks.items():
        target = (folder / name).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(palette[mask]).save(target)
    (folder.parent / "dataset.yaml").write_text(YAML)
    return folder.parent


def as_folders(path: Path, masks: dict[str, np.ndarray]) -> Path:
    folder = path / "classes"
    for name, mask in masks.items():
        for k, label in enumerate(LABELS):
            target = (folder / label / name).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(((mask == k + 1) * 255).astype(np.uint8)).save(target)
    return folder


def as_folders_of_images(path: Path, masks: dict[str, np.ndarray]) -> Path:
    """Black paint on a transparent ground, in a folder of its image."""
    folder = path / "images_classes"
    for name, mask in masks.items():
        for k, label in enumerate(LABELS):
            target = (folder / name).with_suffix("") / f"{label}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            rgba = np.zeros((*mask.shape, 4), np.uint8)
            rgba[mask == k + 1, 3] = 255
            Image.fromarray(rgba).save(target)
    return folder


def as_palette_of_voc(path: Path, masks: dict[str, np.ndarray]) -> Path:
    """Index 0 is black: unpainted, although it would be the id of the first class."""
    folder = path / "voc"
    for name, mask in masks.items():
        target = (folder / name).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(mask)
        picture.putpalette([0, 0, 0, *(v for c in exports.COLOURS for v in c)])
        picture.save(target)
    (folder / "dataset.yaml").write_text(YAML)
    return folder


FORMS: tuple[Callable[[Path, dict[str, np.ndarray]], Path], ...] = (
    as_cvat_zip, as_cvat_palette, as_cvat_xml, as_coco, as_coco_compressed, as_label_studio,
    as_label_studio_min, as_label_studio_pngs, as_labelme, as_colours, as_transparent_colours,
    as_folders, as_folders_of_images, as_palette_of_voc,
)  # fmt: skip


@pytest.mark.parametrize("make", FORMS, ids=lambda make: make.__name__)
def test_every_format_gives_the_painted_masks(
    make: Callable[[Path, dict[str, np.ndarray]], Path],
    tmp_path: Path,
    images: Path,
    masks: dict[str, np.ndarray],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = run(make(tmp_path, masks), images)
    said = capsys.readouterr()
    assert said.err == "" and not caplog.messages
    assert_same(folder, masks)
    assert "never background" in said.out
    assert "no warnings" in said.out
    assert [each.name for each in open_dataset(folder).unlabelled] == ["spare"]
    assert not (folder / "masks" / "spare.png").exists()
    assert (folder / "images" / "sol12" / "b.png").samefile(images / "sol12" / "b.png")
    page = (folder / "import.html").read_text()
    assert page.count("data:image/") == 3 * len(masks)
    assert "http" not in page


def test_stats_and_train_take_the_folder(tmp_path: Path) -> None:
    names = [f"{k}.jpg" for k in range(12)]
    images = exports.photos(tmp_path / "photos", names, size=(64, 48))
    masks = {name: blocks(k, size=(64, 48)) for k, name in enumerate(names)}
    folder = run(as_cvat_zip(tmp_path, masks), images)
    assert main(["stats", str(folder), "--out", str(tmp_path / "stats")]) == 0
    arguments = ["train", "--data", str(folder), "--method", "supervised", "--steps", "2"]
    arguments += ["--batch", "2", "--crop", "32", "--model", "tf_efficientnet_lite0"]
    arguments += ["--weights", "none", "--out", str(tmp_path / "run")]
    assert main(arguments) == 0


def test_colours_are_kept(tmp_path: Path, images: Path, masks: dict[str, np.ndarray]) -> None:
    for k, make in enumerate((as_cvat_zip, as_cvat_xml, as_colours)):
        folder = run(make(tmp_path, masks), images, out=f"out{k}")
        assert tuple(c.colour for c in open_dataset(folder).taxonomy.classes) == exports.COLOURS


def test_classes_are_merged_renamed_and_left_out(
    tmp_path: Path, images: Path, masks: dict[str, np.ndarray]
) -> None:
    export = as_cvat_zip(tmp_path, masks)
    folder = run(export, images, "--classes", "rock=big rock,boulder", "ignore=soil")
    data = open_dataset(folder)
    assert data.taxonomy.names == ("rock",)
    assert data.taxonomy.classes[0].colour == exports.COLOURS[1]
    sample = data.sample("a")
    np.testing.assert_array_equal(
        read_label(sample, data.coding), np.where(masks["a.jpg"] >= 2, 0, 255)
    )


def test_a_misspelt_label_is_told_with_the_nearest(
    tmp_path: Path, images: Path, masks: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    run(as_cvat_zip(tmp_path, masks), images, "--classes", "rock=big rok")
    expected = "'big rok', which the export does not have; did you mean 'big rock'?"
    assert expected in caplog.text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["rock=soil", "sand=soil"], "--classes puts 'soil' into 'rock' and 'sand'"),
        (["=soil"], "--classes needs entries such as"),
        (["rock=a,,b"], "--classes needs entries such as"),
    ],
)
def test_wrong_classes(
    given: list[str],
    message: str,
    tmp_path: Path,
    images: Path,
    masks: dict[str, np.ndarray],
    capsys: pytest.CaptureFixture[str],
) -> None:
    export = as_cvat_zip(tmp_path, masks)
    arguments = ["import", str(export), "--images", str(images), "--out", str(tmp_path / "o")]
    assert main([*arguments, "--classes", *given]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("make", [as_cvat_zip, as_colours, as_folders], ids=lambda m: m.__name__)
def test_images_of_one_name_in_a_folder_and_below(
    make: Callable[[Path, dict[str, np.ndarray]], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = ["a.jpg", "sub/a.jpg", "a.jpg.jpg"]
    images = exports.photos(tmp_path / "photos", names)
    masks = {name: blocks(seed) for seed, name in enumerate(names)}
    folder = run(make(tmp_path, masks), images)
    assert capsys.readouterr().err == "" and not caplog.messages
    assert_same(folder, masks)


def test_the_later_label_wins_and_overlaps_are_counted(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = np.zeros((30, 40), bool)
    first[2:12, 5:25] = True
    second = np.zeros((30, 40), bool)
    second[8:20, 20:30] = True
    annotations = [
        {"category_id": 10, "segmentation": exports.coco_rle(first), "iscrowd": 1},
        {"category_id": 10, "segmentation": exports.coco_rle(first), "iscrowd": 1},  # no overlap
        {"category_id": 11, "segmentation": exports.coco_rle(second), "iscrowd": 1},
    ]
    path = tmp_path / "coco.json"
    path.write_bytes(exports.coco({"a.jpg": ((40, 30), annotations)}))
    folder = run(path, images)
    both = int((first & second).sum())
    assert f"overlaps: {both} pixels in 1 image; the later label wins" in capsys.readouterr().out
    expected = np.where(second, 2, np.where(first, 1, 0))
    np.testing.assert_array_equal(labels_of_one(folder, "a"), expected)


def classes_of(folder: Path) -> tuple[str, ...]:
    return read_description(folder / "dataset.yaml")[0].names


def labels_of_one(folder: Path, name: str) -> np.ndarray:
    """(H, W) index of LABELS + 1, 0 where it is ignored."""
    index = np.asarray(Image.open(folder / "masks" / f"{name}.png"))
    place = np.zeros(256, np.uint8)
    names = classes_of(folder)
    place[: len(names)] = [LABELS.index(each) + 1 for each in names]
    return place[index]


@pytest.mark.parametrize("lowest", ["0", "-1", "--5", "low"])
def test_cvat_paints_by_z_order(lowest: str, tmp_path: Path, images: Path) -> None:
    square = np.zeros((30, 40), bool)
    square[5:15, 5:15] = True
    shapes = [
        exports.cvat_mask_element(square, "boulder", z_order=2),
        exports.cvat_mask_element(square, "soil").replace('z_order="0"', f'z_order="{lowest}"'),
    ]
    export = tmp_path / "annotations.xml"
    export.write_bytes(exports.cvat_xml({"a.jpg": ((40, 30), shapes)}))
    assert set(np.unique(labels_of_one(run(export, images), "a"))) == {0, 3}


def test_shapes_of_cvat(tmp_path: Path, images: Path) -> None:
    shapes = [
        '<polygon label="soil" points="2.00,3.00;12.00,3.00;12.00,9.00;2.00,9.00" z_order="0"/>',
        '<box label="big rock" xtl="20" ytl="4" xbr="30" ybr="8" rotation="90" z_order="0"/>',
        '<ellipse label="boulder" cx="20" cy="22" rx="8" ry="4" z_order="0"/>',
    ]
    export = tmp_path / "annotations.xml"
    export.write_bytes(exports.cvat_xml({"a.jpg": ((40, 30), shapes)}))
    found = labels_of_one(run(export, images), "a")
    rows, columns = np.indices((30, 40)) + 0.5
    polygon = (columns > 2) & (columns < 12) & (rows > 3) & (rows < 9)
    # 10 × 4 around (25, 6), turned by a right angle: 4 × 10
    box = (columns > 23) & (columns < 27) & (rows > 1) & (rows < 11)
    oval = ((columns - 20) / 8) ** 2 + ((rows - 22) / 4) ** 2 < 1
    np.testing.assert_array_equal(found == 1, polygon)
    np.testing.assert_array_equal(found == 2, box)
    assert np.count_nonzero((found == 3) ^ oval) <= 4  # the outline's pixels


def test_the_example_of_the_documentation_of_cvat(tmp_path: Path, images: Path) -> None:
    """https://docs.cvat.ai/docs/other/xml_format: a disk of 13 × 15 pixels."""
    runs = (
        "3, 5, 7, 7, 5, 9, 3, 11, 2, 11, 2, 12, 1, 12, 1, 26, 1, 12, 1, 12, 2, 11, 3, 9, 5, 7, 7, "
        "5, 3"
    )
    mask = (
        f'<mask label="soil" source="manual" occluded="0" rle="{runs}" left="7" top="8" width="13" '
        'height="15" z_order="0"></mask>'
    )
    export = tmp_path / "annotations.xml"
    export.write_bytes(exports.cvat_xml({"a.jpg": ((40, 30), [mask])}))
    found = labels_of_one(run(export, images), "a") == 1
    widths = [5, 7, 9, 11, 11, 12, 12, 13, 13, 12, 12, 11, 9, 7, 5]
    assert found.sum(1)[8:23].tolist() == widths
    assert found[:, 7:20].sum() == found.sum() == sum(widths)


def test_shapes_of_label_studio_in_percent(tmp_path: Path, images: Path) -> None:
    size = (40, 30)
    corner = {"x": 50.0, "y": 20.0, "width": 10.0, "height": 40.0, "rotation": 90.0}
    results = [
        exports.shape_result(
            "polygonlabels",
            {"points": [[5, 10], [30, 10], [30, 30], [5, 30]], "polygonlabels": ["soil"]},
            size,
        ),
        exports.shape_result("rectanglelabels", {**corner, "rectanglelabels": ["big rock"]}, size),
        exports.shape_result(
            "ellipselabels",
            {"x": 50, "y": 80, "radiusX": 20, "radiusY": 10, "ellipselabels": ["boulder"]},
            size,
        ),
        exports.shape_result("choices", {"choices": ["good"]}, size),
    ]
    export = tmp_path / "ls.json"
    export.write_text(json.dumps([exports.label_studio_task(1, "a.jpg", results)]))
    folder = run(export, images)
    found = labels_of_one(folder, "a")
    rows, columns = np.indices((30, 40)) + 0.5
    polygon = (columns > 2) & (columns < 12) & (rows > 3) & (rows < 9)
    # the upper left corner (20, 6) stays, and the right side points down
    box = (columns > 8) & (columns < 20) & (rows > 6) & (rows < 10)
    oval = ((columns - 20) / 8) ** 2 + ((rows - 24) / 3) ** 2 < 1
    np.testing.assert_array_equal(found == 1, polygon & ~box)
    np.testing.assert_array_equal(found == 2, box)
    assert np.count_nonzero((found == 3) ^ oval) <= 4
    assert "type choices, which has no area" in (folder / "warnings.txt").read_text()


def test_bitmasks_of_label_studio(tmp_path: Path, images: Path) -> None:
    painted = blocks(3) > 0
    rgba = np.zeros((30, 40, 4), np.uint8)
    rgba[painted, 3] = 255
    coded = exports.base64.b64encode(exports.png(rgba)).decode()
    value = {"imageDataURL": f"data:image/png;base64,{coded}", "bitmasklabels": ["soil"]}
    result = exports.shape_result("bitmasklabels", value, (40, 30))
    export = tmp_path / "ls.json"
    export.write_text(json.dumps([exports.label_studio_task(1, "a.jpg", [result])]))
    np.testing.assert_array_equal(labels_of_one(run(export, images), "a") == 1, painted)


def test_a_brush_whose_label_is_another_result(tmp_path: Path, images: Path) -> None:
    brush = exports.brush_result(blocks(3) > 0, "unused")
    del brush["value"]["brushlabels"]
    brush["type"] = "brush"
    named = exports.shape_result("labels", {"labels": ["boulder"]}, (40, 30))
    export = tmp_path / "ls.json"
    export.write_text(json.dumps([exports.label_studio_task(1, "a.jpg", [brush, named])]))
    folder = run(export, images)
    assert classes_of(folder) == ("boulder",)


def test_shapes_of_labelme(tmp_path: Path, images: Path) -> None:
    shape = exports.labelme_shape
    shapes = [
        shape("polygon", [[2, 3], [12, 3], [12, 9], [2, 9]], "soil") | {"group_id": 1},
        shape("polygon", [[2, 12], [6, 12], [6, 15]], "soil") | {"group_id": 1},
        shape("rectangle", [[30, 8], [20, 4]], "big rock"),
        shape("circle", [[20, 20], [20, 25]], "boulder"),
        shape("polygon", [[0, 0], [5, 0], [5, 5], [0, 5]], "__ignore__"),
        shape("point", [[3, 3]], "soil"),
    ]
    export = exports.unpacked(tmp_path / "lm", {"a.json": exports.labelme_file("a.jpg", shapes)})
    folder = run(export, images)
    found = labels_of_one(folder, "a")
    assert classes_of(folder) == LABELS
    # with the outline, as labelme draws; what is ignored lies above
    expected = np.zeros((30, 40), bool)
    expected[3:10, 2:13] = True
    expected[:6, :6] = False
    np.testing.assert_array_equal((found == 1)[:11], expected[:11])
    assert (found == 1)[12, 2:7].all()
    assert (found == 2).sum() == 11 * 5
    canvas = Image.new("L", (40, 30))
    ImageDraw.Draw(canvas).ellipse((15, 15, 25, 25), outline=1, fill=1)
    np.testing.assert_array_equal((found == 3)[14:], np.array(canvas, bool)[14:])
    assert "type point, which has no area" in (folder / "warnings.txt").read_text()


def test_rectangles_of_x_anylabeling_have_four_corners(tmp_path: Path, images: Path) -> None:
    shape = exports.labelme_shape
    shapes = [
        shape("rectangle", [[20, 4], [30, 4], [30, 8], [20, 8]], "soil"),
        shape("rotation", [[9, 12], [15, 18], [9, 24], [3, 18]], "big rock") | {"direction": 0.8},
    ]
    export = exports.unpacked(tmp_path / "lm", {"a.json": exports.labelme_file("a.jpg", shapes)})
    folder = run(export, images)
    found = labels_of_one(folder, "a")
    assert (found == 1).sum() == 11 * 5 and (found == 1)[4:9, 20:31].all()
    assert (found == 2).sum() == 7 * 7 + 6 * 6 and (found == 2)[18, 3:16].all()
    assert not (folder / "warnings.txt").exists()


def test_polygons_of_coco_are_filled_as_the_coco_api_does(tmp_path: Path, images: Path) -> None:
    random = np.random.default_rng(4)
    polygons = [(random.random(14) * 30).round(2).tolist() for _ in range(3)]
    annotation = {"category_id": 12, "segmentation": polygons, "iscrowd": 0}
    path = tmp_path / "coco.json"
    path.write_bytes(exports.coco({"a.jpg": ((40, 30), [annotation])}))
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, 30, 40)))
    np.testing.assert_array_equal(labels_of_one(run(path, images), "a") == 3, expected == 1)


def test_an_export_in_the_folder_of_the_images(tmp_path: Path, images: Path) -> None:
    """Masks with a suffix lie beside their images; they are no images."""
    mask = blocks(1)
    palette = np.array([(0, 0, 0), *exports.COLOURS], np.uint8)
    Image.fromarray(palette[mask]).save(images / "a_mask.png")
    (images / "dataset.yaml").write_text(YAML)
    folder = tmp_path / "out"
    arguments = ["import", str(images), "--images", str(images), "--out", str(folder)]
    assert main([*arguments, "--from", "masks"]) == 0
    np.testing.assert_array_equal(labels_of_one(folder, "a"), mask)
    assert sorted(p.name for p in (folder / "images").rglob("*.*")) == [
        "a.jpg", "b.png", "b.png", "spare.jpg",
    ]  # fmt: skip


def test_ids_of_a_plain_folder(tmp_path: Path, images: Path) -> None:
    """Grey masks hold ids; black is one of them there, because the file says so."""
    mask = blocks(1)
    folder = tmp_path / "ids"
    (folder / "masks").mkdir(parents=True)
    Image.fromarray(mask).save(folder / "masks" / "a.png")
    text = "classes: [{name: soil, ids: [1]}, {name: big rock, ids: [2]}]\nignore: [0]\n"
    (folder / "dataset.yaml").write_text(text)
    out = run(folder, images)
    found = labels_of_one(out, "a")
    np.testing.assert_array_equal(found, np.where(mask == 3, 0, mask))
    assert (
        "ids that dataset.yaml does not name, and ignored: 3" in (out / "warnings.txt").read_text()
    )


def test_products_keep_their_labels(tmp_path: Path) -> None:
    images = tmp_path / "photos"
    images.mkdir()
    (images / "x.IMG").write_bytes(b"data")
    (images / "x.LBL").write_text("label")
    exports.photos(images, ["a.jpg"])
    out = run(as_cvat_zip(tmp_path, {"a.jpg": blocks(1)}), images)
    assert sorted(path.name for path in (out / "images").iterdir()) == ["a.jpg", "x.IMG", "x.LBL"]


@pytest.mark.parametrize("given", [".", "link", "empty"])
def test_an_empty_folder_is_filled(
    given: str,
    tmp_path: Path,
    images: Path,
    masks: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export = as_cvat_zip(tmp_path, masks)
    place = tmp_path / "place" if given == "." else tmp_path / "place" / "empty"
    place.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "place")
    if given == "link":
        (tmp_path / "place" / "link").symlink_to(place)
    arguments = ["import", str(export), "--images", str(images), "--out", given]
    assert main(arguments) == 0
    assert (Path.cwd() / given / "dataset.yaml").is_file()
    assert (tmp_path / "place" / "link").is_symlink() == (given == "link")
    assert_same(place, masks)


def test_names_of_label_studio_and_of_macos_in_coco(tmp_path: Path) -> None:
    names = ["my photo (1).jpg", "cafe\u0301.jpg"]
    images = exports.photos(tmp_path / "photos", names)
    masks = {name: blocks(seed) for seed, name in enumerate(names)}
    given = {"images/0a1b2c3d-my_photo_1.jpg": names[0], "caf\u00e9.jpg": names[1]}
    export = as_coco(tmp_path, {name: masks[image] for name, image in given.items()})
    folder = run(export, images)
    for name, mask in masks.items():
        np.testing.assert_array_equal(labels_of_one(folder, Path(name).stem), mask)


def test_masks_have_the_colours_of_dataset_yaml_whatever_label_comes_first(tmp_path: Path) -> None:
    """The third label of another name took the colour of `trace` until that one appeared."""
    labels = ("foo", "bar", "baz", "trace")
    photos = exports.photos(tmp_path / "photos", [f"{label}.jpg" for label in labels])
    square = {"shape_type": "rectangle", "points": [[0, 0], [9, 9]]}
    for number, label in enumerate(labels):
        file = {"imagePath": f"{label}.jpg", "shapes": [{"label": label, **square}]}
        (photos / f"{number}.json").write_text(json.dumps(file))
    folder = run(photos, photos)
    classes = {each.name: each.colour for each in read_description(folder / DESCRIPTION)[0].classes}
    for label in labels:
        with Image.open(folder / "masks" / f"{label}.png") as mask:
            assert mask.convert("RGB").getpixel((5, 5)) == classes[label]
