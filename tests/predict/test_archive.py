"""Maps on disk: all of them, whole, under names that nothing else has."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from s5mars.classes import IGNORE
from s5mars.errors import UserError
from s5mars.labels.loop.folder import STATE
from s5mars.labels.loop.history import NAME as HISTORY
from s5mars.predict.archive import predict_images
from s5mars.predict.manifest import Counts, Manifest
from s5mars.predict.predictor import Predictor
from s5mars.predict.sources import Source, find_sources

from .folders import contents, save
from .standin import THREE, Brightness

ALWAYS = {"index.parquet", "summary.csv", "manifest.sqlite"}


def predictor(**settings: object) -> Predictor:
    return Predictor(Brightness(), THREE, **settings)


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_folder_gives_every_output_and_keeps_sub_folders(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    save(tmp_path / "in/deep/er/b.jpg", size=(70, 50))
    (tmp_path / "in/notes.txt").write_text("no image")
    summary = predict_images(predictor(), [tmp_path / "in"], out=tmp_path / "maps")
    assert summary.counts == Counts(done=2, failed=0, to_do=0)
    assert summary.index == tmp_path / "maps/index.parquet"
    assert str(summary) == f"{summary.index}: 2 done, 0 failed, 0 to do"
    names = {f"{n}{end}" for n in ("a", "deep/er/b") for end in
             (".png", "_confidence.png", "_overlay.jpg")}  # fmt: skip
    assert files_below(tmp_path / "maps") == {*names, *ALWAYS}
    with Image.open(tmp_path / "maps/a.png") as labels:
        assert labels.mode == "P" and labels.size == (60, 40)
        assert np.array_equal(
            np.asarray(labels), np.broadcast_to(np.repeat([2, 1], [20, 40]), (40, 60))
        )
        assert labels.convert("RGB").getpixel((0, 0)) == (0, 0, 200)
    with Image.open(tmp_path / "maps/a_confidence.png") as confidence:
        assert confidence.mode == "L" and confidence.size == (60, 40)
        assert np.asarray(confidence).min() > 128
    with Image.open(tmp_path / "maps/deep/er/b_overlay.jpg") as overlay:
        assert overlay.width >= 70 and overlay.height > 50


def test_table_has_sizes_shares_and_confidence(tmp_path: Path) -> None:
    save(tmp_path / "in/b.png")
    save(tmp_path / "in/a.png", size=(90, 33), grey=128)
    predict_images(predictor(), [tmp_path / "in"], out=tmp_path / "maps")
    rows = table(tmp_path / "maps")
    assert [row["image"] for row in rows] == ["a.png", "b.png"]
    assert (rows[0]["width"], rows[0]["height"]) == ("90", "33")
    assert [float(rows[0][name]) for name in THREE.names] == [0, 1, 0]
    assert [float(rows[1][name]) for name in THREE.names] == pytest.approx(
        [0, 2 / 3, 1 / 3], abs=1e-5
    )
    with Image.open(tmp_path / "maps/b_confidence.png") as confidence:
        mean = np.asarray(confidence).mean() / 255
    assert float(rows[1]["mean_confidence"]) == pytest.approx(mean, abs=1e-3)


def test_black_borders_become_no_data_everywhere(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", grey=0)
    predict_images(predictor(), [tmp_path / "in"], out=tmp_path / "maps")
    with Image.open(tmp_path / "maps/a.png") as labels:
        assert np.array_equal(
            np.asarray(labels), np.broadcast_to(np.repeat([IGNORE, 1], [20, 40]), (40, 60))
        )
        assert labels.convert("RGB").getpixel((0, 0)) == (0, 0, 0)
    with Image.open(tmp_path / "maps/a_confidence.png") as confidence:
        assert np.asarray(confidence)[:, :20].max() == 0
        mean = np.asarray(confidence)[:, 20:].mean() / 255
    (row,) = table(tmp_path / "maps")
    assert float(row["no_data"]) == pytest.approx(1 / 3, abs=1e-5)
    assert float(row["middle"]) == 1
    assert float(row["mean_confidence"]) == pytest.approx(mean, abs=1e-3)


def test_an_image_without_any_data_has_empty_cells(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "black.png")
    predict_images(predictor(), [tmp_path / "black.png"], out=tmp_path / "maps")
    (row,) = table(tmp_path / "maps")
    assert row["mean_confidence"] == row["dark"] == ""
    assert float(row["no_data"]) == 1


def test_only_labels_where_only_labels_are_wanted(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png")
    predict_images(predictor(), [image], out=tmp_path / "maps", write=["labels"])
    assert files_below(tmp_path / "maps") == {"a.png", *ALWAYS}


def test_files_and_folders_mix_and_an_image_given_twice_is_one(tmp_path: Path) -> None:
    first, second = save(tmp_path / "in/a.png"), save(tmp_path / "b.png")
    sources = find_sources([tmp_path / "in", first, second], out=tmp_path / "maps")
    assert [(s.path, s.name) for s in sources] == [(first, "a"), (second, "b")]


def test_maps_of_an_earlier_run_inside_the_folder_are_no_input(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    for _ in range(2):
        assert predict_images(predictor(), [tmp_path], out=tmp_path / "maps").counts.done == 1


def test_out_may_be_above_the_input_folder(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    predict_images(predictor(), [tmp_path / "in"], out=tmp_path)
    assert (tmp_path / "a_overlay.jpg").is_file()


@pytest.mark.parametrize(
    "names",
    [
        ("one/a.png", "two/a.png"),
        ("one/a.png", "one/a.jpg"),
        ("one/a.png", "one/a_confidence.png"),  # a's confidence map and the other's class map
    ],
)
def test_two_images_of_one_name_get_files_of_their_own(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    images = [save(tmp_path / names[0], grey=255), save(tmp_path / names[1], grey=50)]
    predict_images(predictor(), images, out=tmp_path / "maps")
    assert len(files_below(tmp_path / "maps") - ALWAYS) == 6
    rows = pq.read_table(tmp_path / "maps/index.parquet").to_pylist()
    brightest = {row["path"]: row["bright"] > 0 for row in rows}
    assert brightest == {str(images[0]): True, str(images[1]): False}
    for row in rows:
        with Image.open(tmp_path / "maps" / f"{row['name']}.png") as labels:
            assert (np.asarray(labels) == 2).any() == (row["bright"] > 0)


def test_labels_and_maps_below_a_folder_are_no_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    for name in ("images/a.png", "masks/a.png", "old/masks/b.png", "unlabelled/c.png"):
        save(data / name)
    summary = predict_images(predictor(), [data / "images"], out=data / "maps")
    assert summary.counts == Counts(done=1, failed=0, to_do=0) and not caplog.messages
    found = find_sources([data], out=tmp_path / "again")
    assert [source.name for source in found] == ["images/a", "old/masks/b", "unlabelled/c"]
    remedy = "to use its images, give this folder itself"
    assert caplog.messages == [
        f"{data / 'maps'} is left out, because it contains the maps of an earlier prediction; "
        f"{remedy}",
        f"{data / 'masks'} is left out, because it contains the labels of {data / 'images'}; "
        f"{remedy}",
    ]
    assert len(find_sources([data / "masks"], out=tmp_path / "again")) == 1


def test_images_of_a_folder_with_a_label_page_are_mapped_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.png", f"{STATE}/runs/1/maps/a.png", f"{STATE}/runs/1/maps/a_confidence.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "in" / STATE / HISTORY).touch()
    (tmp_path / "in/images").mkdir()
    (tmp_path / "in/images/a.png").symlink_to("../a.png")
    (tmp_path / "in/images/other.png").symlink_to("../a.png")  # the name may hold metadata
    (tmp_path / "in/images/lost.png").symlink_to("../lost.png")
    (tmp_path / "in/images/round.png").symlink_to("round.png")
    found = find_sources([tmp_path / "in"], out=tmp_path / "maps")
    assert [source.name for source in found] == [
        "a", "images/lost", "images/other", "images/round",
    ]  # fmt: skip
    assert caplog.messages == [
        f"{tmp_path / 'in' / STATE} is left out, because it contains files of the label page; to "
        "use its images, give this folder itself"
    ]
    assert len(find_sources([tmp_path / "in/images"], out=tmp_path / "maps")) == 4


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    image = save(tmp_path / "in/a.png")
    before = image.read_bytes()
    with pytest.raises(ValueError, match="would be overwritten"):
        predict_images(predictor(), [image], out=tmp_path / "in")
    with pytest.raises(ValueError, match="is an input folder"):
        predict_images(predictor(), [tmp_path / "in"], out=tmp_path / "in")
    assert image.read_bytes() == before and files_below(tmp_path / "in") == {"a.png"}


def test_a_file_of_the_user_in_the_output_folder_is_never_overwritten(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    save(images / "a.png")
    save(masks / "a.png")
    before = contents(tmp_path)
    said = r"masks/a\.png exists and was not written by a prediction.*another --out, or move"
    with pytest.raises(UserError, match=said):
        predict_images(predictor(), [images], out=masks, write=["labels"])
    save(images / "a.jpg")
    with pytest.raises(UserError, match=r"images/a\.png (is an input|exists)"):
        predict_images(predictor(), [images / "a.jpg"], out=images, write=["labels"])
    (images / "a.jpg").unlink()
    (tmp_path / "summary.csv").touch()
    with pytest.raises(UserError, match=r"summary\.csv exists and was not written"):
        predict_images(predictor(), [images], out=tmp_path, write=["labels"])
    (tmp_path / "summary.csv").unlink()
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("readers_here")
def test_a_folder_of_maps_rewrites_its_own_files_only(tmp_path: Path) -> None:
    first, second = save(tmp_path / "in/a.png"), save(tmp_path / "in/b.png")
    out = tmp_path / "maps"
    for _ in range(2):
        predict_images(predictor(), [first], out=out, write=["labels"])
    save(out / "b.png", grey=9)
    before = contents(out)
    for resume in (False, True):
        with pytest.raises(UserError, match=r"maps/b\.png exists and was not written"):
            predict_images(predictor(), [first, second], out=out, write=["labels"], resume=resume)
    assert contents(out) == before
    # A product of a killed run is its own, although nothing records the files that it has.
    (out / "b.png").unlink()
    with Manifest(out) as manifest:
        manifest.add([Source(second, "b")], again=False)
    save(out / "b.png", grey=9)
    summary = predict_images(predictor(), [second], out=out, write=["labels"], resume=True)
    assert summary.counts == Counts(done=2, failed=0, to_do=0)


def test_missing_and_empty_inputs_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        predict_images(predictor(), [tmp_path / "nowhere"], out=tmp_path / "maps")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty contains no image .*\.jpg"):
        predict_images(predictor(), [tmp_path / "empty"], out=tmp_path / "maps")
    with pytest.raises(ValueError, match="no inputs"):
        predict_images(predictor(), [], out=tmp_path / "maps")


def truncated(path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


@pytest.mark.parametrize("kind", ["truncated", "text", "empty"])
def test_a_bad_file_is_named_or_skipped_and_counted(tmp_path: Path, kind: str) -> None:
    save(tmp_path / "in/a.png")
    save(tmp_path / "in/c.png")
    bad = tmp_path / "in/b.png"
    if kind == "truncated":
        truncated(bad)
    else:
        bad.write_text("not an image" if kind == "text" else "")
    with pytest.raises(ValueError, match=r"1 failed.*in/b\.png") as raised:
        predict_images(predictor(), [tmp_path / "in"], out=tmp_path / "maps")
    assert "\n" not in str(raised.value)
    assert not any(name.startswith("b") for name in files_below(tmp_path / "maps"))
    assert [row["image"] for row in table(tmp_path / "maps")] == ["a.png", "c.png"]
    failed = pq.read_table(tmp_path / "maps/index.parquet").to_pylist()[1]
    assert failed["status"] == "failed" and str(bad) in failed["reason"]
    assert failed["bright"] is None and failed["width"] is None
    summary = predict_images(predictor(), [tmp_path / "in"], out=tmp_path / "maps", skip_bad=True)
    assert summary.counts == Counts(done=2, failed=1, to_do=0)
    assert summary.failure is not None and "b.png" in summary.failure


@pytest.mark.usefixtures("readers_here")
def test_a_link_to_itself_is_a_failed_product(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    for name in ("self.png", "self"):
        (tmp_path / "in" / name).symlink_to(name)
    said = r"1 done, 1 failed, .*in/self\.png is a link that leads to itself: leave it out$"
    with pytest.raises(UserError, match=said):
        predict_images(predictor(), [tmp_path / "in"], out=tmp_path / "maps", write=["labels"])


def test_nothing_readable_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"no product could be predicted.*a\.png"):
        predict_images(predictor(), [tmp_path / "a.png"], out=tmp_path / "maps", skip_bad=True)


def test_a_full_disk_is_said_in_words_and_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = save(tmp_path / "a.png")
    whole = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if "summary.csv" in path.name:
            return whole(path, content)
        whole(path, bytes(content)[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"disk is full.*a_confidence\.png.*1 to do.*--resume"):
        predict_images(predictor(), [image], out=tmp_path / "maps")
    assert files_below(tmp_path / "maps") == ALWAYS


def test_windows_and_batch_and_workers_do_not_change_the_files(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", size=(200, 150))
    predict_images(predictor(), [image], out=tmp_path / "one")
    predict_images(predictor(window=64, batch=3), [image], out=tmp_path / "two", workers=5)
    for name in ("a.png", "a_overlay.jpg", "summary.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_run_lengths_are_the_class_map(tmp_path: Path) -> None:
    save(tmp_path / "in/deep/a.png", grey=0)
    save(tmp_path / "in/b.png")
    predict_images(predictor(), [tmp_path / "in"], out=tmp_path / "maps", write=["rle", "labels"])
    for name, classes in (("deep/a", {1}), ("b", {1, 2})):
        content = json.loads((tmp_path / f"maps/{name}_rle.json").read_text())
        with Image.open(tmp_path / f"maps/{name}.png") as picture:
            labels = np.asarray(picture)
        assert content["image"] == {"file_name": f"{name[-1]}.png", "height": 40, "width": 60}
        assert [c["name"] for c in content["categories"]] == list(THREE.names)
        assert {a["category_id"] for a in content["annotations"]} == classes
        for annotation in content["annotations"]:
            mask = labels == annotation["category_id"]
            assert np.array_equal(coco_mask.decode(annotation["segmentation"]) == 1, mask)
            assert annotation["area"] == mask.sum()


def test_an_overlay_that_is_too_wide_for_a_jpeg_is_named(tmp_path: Path) -> None:
    save(tmp_path / "wide.png", size=(65_501, 2))
    predictor, images = Predictor(Brightness(), THREE), [tmp_path / "wide.png"]
    with pytest.raises(UserError, match=r"wide.png: the overlay would have 65,501×.* --write"):
        predict_images(predictor, images, out=tmp_path / "maps")
    write = ["labels", "confidence"]
    assert predict_images(predictor, images, out=tmp_path / "maps", write=write).counts.done == 1


def test_what_the_network_cannot_take_stops_no_other(tmp_path: Path) -> None:
    class Choosy(Brightness):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if image.shape[-1] == 61:
                raise RuntimeError("out of memory\nand a long story")
            return super().forward(image)

    for name, width in (("a", 60), ("b", 61), ("c", 62)):
        save(tmp_path / f"in/{name}.png", size=(width, 40))
    with pytest.raises(ValueError, match=r"2 done, 1 failed, .*in/b\.png: out of memory$"):
        predict_images(Predictor(Choosy(), THREE), [tmp_path / "in"], out=tmp_path / "maps")
    assert len(table(tmp_path / "maps")) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"write": ["lables"]},
            "--write must name some of confidence, labels, overlay.*got lables",
        ),
        ({"write": []}, "got nothing"),
        ({"workers": 0}, r"--workers must be at least 1 \(got 0\)"),
        ({"engine": "spark"}, "--engine must be one of local, ray"),
    ],
)
def test_settings_out_of_range_are_named_before_any_work(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    image = save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        predict_images(predictor(), [image], out=tmp_path / "maps", **settings)
    assert not (tmp_path / "maps").exists()


def test_real_images_of_every_kind(tmp_path: Path, real_data: Path) -> None:
    colour = sorted((real_data / "marsscapes512/images").iterdir())[:2]
    raw = sorted((real_data / "raw_products").glob("*.png"))[:1]
    inputs = [*colour, *raw, real_data / "pds"]
    predict_images(predictor(window=512), inputs, out=tmp_path / "maps", write=["labels"])
    rows = pq.read_table(tmp_path / "maps/index.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["done"] * 5
    known = {row["image"]: (row["mission"], row["camera"], row["sol"]) for row in rows}
    assert {("MSL", "Navcam Left"), ("M2020", "Navcam Left")} <= {k[:2] for k in known.values()}
    assert known[raw[0].name][2] is not None
    with Image.open(raw[0]) as image, Image.open(tmp_path / f"maps/{raw[0].stem}.png") as labels:
        assert image.size == labels.size
