"""Products unlike the training images are marked in the index, the summary and the overlay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import s5mars
from boxed import TERRAIN, grey
from s5mars.cli import main
from s5mars.errors import UserError
from s5mars.predict.archive import predict_images
from s5mars.predict.describe import describe_images
from s5mars.predict.overlay import BADGE_BACKGROUND, overlay
from s5mars.predict.predictor import Predictor

from .standin import THREE, Brightness

NOISE = np.random.default_rng(1).integers(0, 256, (64, 64, 1), np.uint8).repeat(3, 2)
RED = grey(31) // np.array([1, 2, 3], np.uint8)
OTHER = "NLF_0670_0726421423_362ECM_N0320604NCAM08111_01_095J01"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A known image and one that is unlike the training images in each way."""
    folder = tmp_path / "archive"
    folder.mkdir()
    pictures = {"known": grey(30), "noise": NOISE, "red": RED, OTHER: grey(32)}
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.mark.usefixtures("readers_here")
def test_index_summary_and_overlay(navcam: Path, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    summary = predict_images(s5mars.load("navcam"), [archive], out=out)
    rows = {row["name"]: row for row in pq.read_table(out / "index.parquet").to_pylist()}
    reasons = {name: row["out_of_domain_reason"] for name, row in rows.items()}
    assert reasons["known"] is None and reasons["noise"] == "unusual features"
    assert reasons["red"].startswith("colour image")
    assert reasons[OTHER] == "camera M2020 Navcam"
    assert [name for name, row in rows.items() if not row["out_of_domain"]] == ["known"]
    assert 0 < rows["known"]["domain_distance"] < 1 < rows["noise"]["domain_distance"]
    said = str(summary)
    assert "3 of 4 products differ from the training images (camera M2020 Navcam: 1, " in said
    assert "trained on grey images of MSL Navcam, 64 pixels. An image is out of domain if" in said
    assert f"s5mars find {out} out_of_domain" in said
    for name, row in rows.items():
        with Image.open(out / f"{name}_overlay.jpg") as drawn:
            corner = np.asarray(drawn)[1:3, 1:6].reshape(-1, 3).astype(int)
        badge = (np.abs(corner - BADGE_BACKGROUND) < 40).all()
        assert badge == row["out_of_domain"], name
    assert "known,64,64," in (out / "summary.csv").read_text().replace(".png", "")


@pytest.mark.usefixtures("readers_here")
def test_find_asks_for_them(
    navcam: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "maps")
    assert main(["predict", str(archive), "--out", out, "--write", "labels"]) == 0
    capsys.readouterr()
    assert main(["find", out, "not out_of_domain"]) == 0
    assert capsys.readouterr().err.startswith("1 of 4 products")


@pytest.mark.usefixtures("readers_here")
def test_a_model_without_a_record_says_nothing(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    summary = predict_images(Predictor(Brightness(), THREE), [archive], out=out, write=["labels"])
    assert "domain" not in str(summary)
    table = pq.read_table(out / "index.parquet")
    for column in ("out_of_domain", "out_of_domain_reason", "domain_distance"):
        assert table[column].null_count == 4


@pytest.mark.usefixtures("readers_here")
def test_another_record_is_another_model(navcam: Path, archive: Path, tmp_path: Path) -> None:
    predictor = s5mars.load("navcam")
    predict_images(predictor, [archive / "red.png"], out=tmp_path / "maps", write=["labels"])
    assert predictor.domain is not None
    predictor.domain = replace(predictor.domain, colour=1.0)
    with pytest.raises(UserError, match="domain"):
        predict_images(predictor, [archive], out=tmp_path / "maps", write=["labels"], resume=True)


def test_maps_do_not_depend_on_it(navcam: Path) -> None:
    with_record, without = s5mars.load("navcam"), s5mars.load("navcam")
    without.domain = None
    image = np.concatenate([grey(3), NOISE], axis=1)
    one, other = with_record.segment(image), without.segment(image)
    assert np.array_equal(one.labels, other.labels) and other.verdict is None
    assert np.array_equal(one.confidence, other.confidence)


def test_windows_and_black_borders_change_the_features_little(navcam: Path) -> None:
    image = np.block([[[grey(5, 128)], [grey(6, 128)]], [[grey(7, 128)], [grey(8, 128)]]])
    whole = s5mars.load("navcam").features(image)
    windows = s5mars.load("navcam", window=96, overlap=0.1).features(image)
    bordered = np.zeros((256, 512, 3), np.uint8)
    bordered[:, :256] = image
    half = s5mars.load("navcam").features(bordered)
    size = np.abs(whole).mean()
    assert np.abs(windows - whole).mean() < 0.1 * size
    assert np.abs(half - whole).mean() < 0.1 * size
    black = s5mars.load("navcam").features(np.zeros((64, 64, 3), np.uint8))
    assert np.isfinite(black).all() and np.abs(black - whole).mean() > 0.3 * size


def test_describe(navcam: Path, tmp_path: Path) -> None:
    paths = []
    for seed in range(24):
        paths.append(tmp_path / f"NLB_5167{seed:05d}EDR_F0540992CCAM15900M1.png")
        Image.fromarray(grey(seed, 64 if seed else 96)).save(paths[-1])
    bad = tmp_path / "NLB_516721703EDR_F0540992CCAM15900M1.png"
    bad.write_bytes(b"")
    found = describe_images(s5mars.load("navcam"), [*paths, bad], network="student")
    assert (found.images, found.colour, found.sides, found.shape) == (24, 0, (64, 96), 1)
    assert found.cameras == {"MSL Navcam": 24} and found.features is not None
    few = describe_images(s5mars.load("navcam"), paths[:19], network="student")
    assert few.features is None  # too few to know how much they differ
    with pytest.raises(UserError, match="no training image"):
        describe_images(s5mars.load("navcam"), [bad], network="student")


@pytest.mark.parametrize("width", [12, 60, 900])
def test_the_badge_fits(width: int) -> None:
    image = np.full((80, width, 3), 100, np.uint8)
    labels = np.zeros((80, width), np.uint8)
    plain = np.asarray(overlay(image, labels, TERRAIN))
    badged = np.asarray(overlay(image, labels, TERRAIN, badge="out of domain: colour image"))
    changed = np.argwhere((plain != badged).any(2))
    assert changed[:, 0].max() < 40 and changed[:, 1].max() < max(width, 12)
