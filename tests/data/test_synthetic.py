"""Synthetic scenes: what they must share with the data set that they imitate."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from s5mars.classes import IGNORE, S5MARS, hex_colour
from s5mars.data.synthetic import render_scene, write_synthetic
from s5mars.data.synthetic.annotate import annotate
from s5mars.data.synthetic.camera import Camera
from s5mars.data.synthetic.noise import crack_tile, pebble_tile, sample, wave_tile
from s5mars.data.synthetic.rocks import Rock, draw_rock
from s5mars.data.synthetic.write import _spread
from s5mars.randomness import generator

Scene = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(128, seed=0, index=index) for index in range(60)]


def test_shapes_and_values(scenes: list[Scene]) -> None:
    for image, label in scenes:
        assert image.shape == (128, 128, 3) and image.dtype == np.uint8
        assert label.shape == (128, 128) and label.dtype == np.uint8
        assert set(np.unique(label)) <= {*range(9), IGNORE}


def test_all_nine_classes_occur_in_a_sensible_share_of_the_scenes(scenes: list[Scene]) -> None:
    present = np.array([[(label == k).any() for k in range(9)] for _, label in scenes]).mean(0)
    share = dict(zip(S5MARS.names, present, strict=True))
    assert all(0.15 <= share[name] <= 0.4 for name in ("rover", "trace", "hole")), share
    assert all(share[name] >= 0.3 for name in S5MARS.names[:6]), share


def test_about_half_of_the_pixels_are_labelled(scenes: list[Scene]) -> None:
    shares = np.array([(label != IGNORE).mean() for _, label in scenes])
    assert abs(shares.mean() - 0.49) < 0.06
    assert shares.std() > 0.04  # some images get more of an annotator's time than others
    assert (shares > 0.1).all()


def test_colour_range_is_that_of_table_two(scenes: list[Scene]) -> None:
    pixels = np.stack([image for image, _ in scenes]).reshape(-1, 3) / 255
    mean, deviation = pixels.mean(0), pixels.std(0)
    np.testing.assert_allclose(deviation, (0.134, 0.121, 0.099), rtol=0.12)
    np.testing.assert_allclose(deviation / mean, (0.214, 0.233, 0.273), rtol=0.12)


def test_scenes_differ_in_light_and_cast(scenes: list[Scene]) -> None:
    means = np.array([image.mean((0, 1)) / 255 for image, _ in scenes])
    assert means.mean(1).std() > 0.03
    assert (means[:, 0] / means[:, 2]).std() > 0.05


def test_boundaries_between_classes_are_unlabelled(scenes: list[Scene]) -> None:
    for _, label in scenes:
        for a, b in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1])):
            assert not ((a != b) & (a != IGNORE) & (b != IGNORE)).any()


def test_classes_can_be_told_apart_but_not_by_colour_alone(scenes: list[Scene]) -> None:
    """The nearest mean colour gets part of the pixels right: neither noise nor a giveaway."""
    pixels = np.concatenate([image[label != IGNORE] for image, label in scenes])[::7].astype(float)
    truth = np.concatenate([label[label != IGNORE] for _, label in scenes])[::7]
    means = np.stack([pixels[truth == k].mean(0) for k in range(9)])
    guess = ((pixels[:, None] - means) ** 2).sum(-1).argmin(1)
    accuracy = np.mean([(guess[truth == k] == k).mean() for k in range(9)])
    assert 1.3 / 9 < accuracy < 0.6


def test_scene_depends_on_seed_and_index_only(scenes: list[Scene]) -> None:
    image, label = render_scene(128, seed=0, index=7)
    np.testing.assert_array_equal(image, scenes[7][0])
    np.testing.assert_array_equal(label, scenes[7][1])
    assert (render_scene(128, seed=1, index=7)[0] != image).any()
    assert (scenes[6][0] != image).any()


def test_same_scene_at_another_size_shows_the_same_things() -> None:
    small, _ = render_scene(96, seed=0, index=3)
    large, _ = render_scene(192, seed=0, index=3)
    reduced = np.asarray(Image.fromarray(large).resize((96, 96), Image.Resampling.BOX), float)
    correlation = np.corrcoef(small.mean(2).ravel(), reduced.mean(2).ravel())[0, 1]
    assert correlation > 0.85


@pytest.mark.parametrize("size", [32, 45, 101])
def test_odd_and_small_sizes(size: int) -> None:
    for index in range(10):
        image, label = render_scene(size, seed=5, index=index)
        assert image.shape == (size, size, 3) and label.shape == (size, size)


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 32 pixels \(got 8\)"):
        render_scene(8, seed=0, index=0)
    with pytest.raises(ValueError, match="index must be at least 0"):
        render_scene(64, seed=0, index=-1)


# The folder


def _bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    a = write_synthetic(tmp_path / "a", images=6, size=64, seed=3, unlabelled=2)
    b = write_synthetic(tmp_path / "b", images=6, size=64, seed=3, unlabelled=2)
    c = write_synthetic(tmp_path / "c", images=6, size=64, seed=4, unlabelled=2)
    assert _bytes(a) == _bytes(b)
    assert _bytes(a)["images/scene_0000.jpg"] != _bytes(c)["images/scene_0000.jpg"]


def test_layout(tmp_path: Path) -> None:
    out = write_synthetic(tmp_path / "deep" / "set", images=10, size=64, unlabelled=3)
    names = {p.stem for p in (out / "images").glob("*.jpg")}
    assert names == {p.stem for p in (out / "masks").glob("*.png")} and len(names) == 10
    assert len(list((out / "unlabelled").glob("*.jpg"))) == 3
    listed = [(out / "splits" / f"{s}.txt").read_text().split() for s in ("train", "val", "test")]
    assert [len(part) for part in listed] == [6, 2, 2]
    assert sorted(chain.from_iterable(listed)) == sorted(names)
    with Image.open(out / "masks" / "scene_0000.png") as mask:
        label = np.asarray(mask)
    np.testing.assert_array_equal(label, render_scene(64, seed=0, index=0)[1])
    about = yaml.safe_load((out / "dataset.yaml").read_text())
    assert about["ignore"] == [IGNORE]
    assert [(c["name"], c["ids"], c["color"]) for c in about["classes"]] == [
        (kind.name, [index], hex_colour(kind.colour)) for index, kind in enumerate(S5MARS.classes)
    ]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["set"]  # nothing temporary is left


def test_splits_hold_every_class(scenes: list[Scene]) -> None:
    present = np.array([[(label == k).any() for k in range(9)] for _, label in scenes])
    members = _spread(present)
    assert sorted(chain.from_iterable(members.values())) == list(range(60))
    assert {name: len(part) for name, part in members.items()} == {
        "train": 36, "val": 12, "test": 12,
    }  # fmt: skip
    for part in members.values():
        assert present[part].any(0).all()


def test_used_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match=r"is not empty: choose a new folder"):
        write_synthetic(tmp_path, images=3, size=32)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ValueError, match="is a file"):
        write_synthetic(tmp_path / "mine.txt", images=3, size=32)


@pytest.mark.parametrize("given", ["set", "link", "."])
def test_empty_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "link").symlink_to("set")
    monkeypatch.chdir(tmp_path / "set" if given == "." else tmp_path)
    write_synthetic(given, images=3, size=32)
    assert (tmp_path / "set/dataset.yaml").is_file() and (tmp_path / "link").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"set", "link"}


def test_broken_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def render(size: int, *, seed: int, index: int) -> Scene:
        if index == 1:
            raise KeyboardInterrupt
        return render_scene(size, seed=seed, index=index)

    monkeypatch.setattr("s5mars.data.synthetic.write.render_scene", render)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "set", images=3, size=32)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("images", "size", "unlabelled", "message"),
    [
        (2, 64, 0, "--images must be at least 3.*got 2"),
        (3, 16, 0, "--size must be at least 32.*got 16"),
        (3, 64, -1, "unlabelled must be at least 0 .got -1"),
    ],
)
def test_bad_options_are_refused(
    tmp_path: Path, images: int, size: int, unlabelled: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_synthetic(tmp_path / "set", images=images, size=size, unlabelled=unlabelled)
    assert list(tmp_path.iterdir()) == []


# The parts


@pytest.mark.parametrize("tile", [wave_tile(0), crack_tile(), pebble_tile()])
def test_tiles_are_periodic_and_read_exactly_at_texels(tile: NDArray[np.float32]) -> None:
    size = tile.shape[0]
    u, v = np.meshgrid(np.arange(5, dtype=np.float32), np.arange(7, dtype=np.float32))
    np.testing.assert_array_equal(sample(tile, u, v), tile[:7, :5])
    np.testing.assert_allclose(
        sample(tile, u + 0.5 - size, v + 2 * size),
        (tile[:7, :5] + tile[:7, 1:6]) / 2,
        atol=1e-6,
    )
    # No seam: the step from the last column to the first is no larger than others.
    steps = np.abs(np.diff(np.concatenate([tile, tile[:, :1]], 1), axis=1)).reshape(size, size, -1)
    assert (steps[:, -1].mean(0) < 3 * steps.mean((0, 1))).all()


def test_flat_ground_is_seen_at_its_distance() -> None:
    camera = Camera(64, 1.2, 1.8, 0.3)
    grid = camera.grid()
    visible = grid.visible(np.zeros(grid.shape, np.float32))
    z = visible.read(grid.z)
    rows = np.arange(64)
    assert not visible.ground[rows + 0.5 < 0.3 * 64].any()
    near = rows > 0.45 * 64
    expected = [camera.depth((row + 0.5) / 64) for row in rows[near]]
    np.testing.assert_allclose(z[near], np.repeat(np.array(expected)[:, None], 64, 1), rtol=0.02)


def test_a_hill_hides_what_is_behind_it() -> None:
    camera = Camera(64, 1.2, 1.8, 0.3)
    grid = camera.grid()
    wall = np.where(np.abs(grid.z - 8) < 0.6, 1.2, 0).astype(np.float32)
    z = grid.visible(wall).read(grid.z)[:, 32]
    behind_wall = (z > 8.8) & (z < 14)  # the ground in the lee of a wall that is 1.2 m high
    assert not behind_wall.any()
    assert (z > 25).any() and (z < 7).any()


@pytest.mark.parametrize("shape", range(0, 200, 12))
def test_a_rock_may_stand_at_the_very_edge_of_the_image(shape: int) -> None:
    """One column of a rock once had no slope to shade, and raised (shapes 12, 24 and others)."""
    camera = Camera(64, 1.2, 1.8, 0.1)
    z = camera.depth(0.7)
    for column in (-8.8, -4.0, 30.0, 66.0, 72.6):
        x = (column / 64 - 0.5) * z / camera.focal
        rock = Rock(x, 0.0, z, 6 / 64 * z / camera.focal, 0.8, (0.5, 0.5, 0.5), shape)
        image, classes = np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.uint8)
        depth = np.full((64, 64), z, np.float32)
        draw_rock(image, classes, depth, rock, camera, sun=(0, 1, 0), ambient=0.4, label=5)
        assert np.isfinite(image).all()
        assert (classes == 5).sum() < 64 * 64 / 8
        if column == 30.0:
            assert (classes == 5).sum() > 30


def test_annotation_keeps_the_asked_share_and_small_objects() -> None:
    classes = np.full((128, 128), 2, np.uint8)
    classes[:, 70:] = 4
    classes[20:26, 20:26] = 5
    label = annotate(generator(0, "test"), classes, 0.3)
    assert abs((label != IGNORE).mean() - 0.3) < 0.02
    assert (label[21:25, 21:25] == 5).all()  # objects are drawn first
    assert (label[:, 69:71] == IGNORE).all()
    kept = label != IGNORE
    np.testing.assert_array_equal(label[kept], classes[kept])
