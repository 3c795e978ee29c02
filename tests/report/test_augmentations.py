"""Sheets of augmentations: each row is what training would do to the image."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from s5mars.augment.statistics import augin
from s5mars.classes import IGNORE
from s5mars.cli import main
from s5mars.report.augmentations import BASES, _nearest_label, rows, show_augmentations
from s5mars.settings.ablations import ABLATIONS
from s5mars.types import Targets, View

SIZE, CLASSES = 24, 3


@pytest.fixture(scope="module")
def data(fake_data: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = fake_data.plain(tmp_path_factory.mktemp("data") / "plain")
    return path


def pair() -> tuple[View, torch.Tensor]:
    """An image and its partner: stripes of classes, and the mark of the partner's pixels."""
    random = torch.Generator().manual_seed(0)
    label = (torch.arange(SIZE) // (SIZE // CLASSES)).expand(2, SIZE, SIZE)
    probability = torch.nn.functional.one_hot(label, CLASSES + 1).permute(0, 3, 1, 2).float()
    probability[1, -1] = 0.5
    image = torch.rand(2, 3, SIZE, SIZE, generator=random)
    valid = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    mask = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    mask[:, 4:18, 6:20] = True
    return View(image, Targets(probability, label, valid)), mask


@pytest.mark.parametrize("name", sorted(BASES))
def test_one_picture_a_row_and_the_base_does_nothing_else(name: str) -> None:
    views, mask = pair()
    tiles = {tile.title: tile for tile in rows(views, mask, augmentations=name, seed=3)}
    assert list(tiles) == list(ABLATIONS[name].rows)
    own, other = (image.permute(1, 2, 0).numpy() for image in views.image)
    for title, tile in tiles.items():
        if title == "identity":
            assert np.array_equal(tile.image, own) and tile.pasted is None
        if name == "objects":  # a turned object is resampled
            assert tile.pasted is not None
        elif tile.pasted is not None:
            still = ~tile.pasted
            assert np.array_equal(tile.image[still], own[still])
            if title != "sam_mix":
                assert np.array_equal(tile.image[tile.pasted], other[tile.pasted])
    pasting = {title for title, tile in tiles.items() if tile.pasted is not None}
    assert (
        pasting
        == {
            "strong": {"cutmix", "sam_mix"},
            "augin": set(),
            "mixing": {"cutmix", "classmix", "dacs", "sam_mix"},
            "objects": set(ABLATIONS["objects"].rows),
        }[name]
    )


def test_the_pictures_of_augin_are_augin() -> None:
    views, mask = pair()
    tiles = {tile.title: tile for tile in rows(views, mask, augmentations="augin", seed=0)}
    expected = augin(views.image, views.targets.valid, partner=torch.tensor([1, 0]), swap="mean")
    assert np.array_equal(tiles["mean"].image, expected[0].permute(1, 2, 0).numpy())


def test_the_object_that_is_not_turned_is_the_mask() -> None:
    views, mask = pair()
    tiles = {tile.title: tile for tile in rows(views, mask, augmentations="objects", seed=0)}
    pasted = tiles["none"].pasted
    assert pasted is not None and np.array_equal(pasted, mask[0].numpy())


def test_unlabelled_pixels_take_the_nearest_class() -> None:
    label = np.full((4, 6), IGNORE, np.uint8)
    label[:, 0], label[:, 5] = 1, 2
    assert (_nearest_label(label) == np.array([1, 1, 1, 2, 2, 2])).all()
    assert (_nearest_label(np.full((2, 2), IGNORE, np.uint8)) == 0).all()


@pytest.mark.parametrize("name", sorted(BASES))
def test_the_command_writes_a_sheet(
    name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "sheet.png"
    arguments = ["show", str(data), "--augmentations", name, "--seed", "2", "--out", str(out)]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) > 600 and pixels.std() > 20


def test_a_seed_draws_all_of_a_sheet(data: Path, tmp_path: Path) -> None:
    one, again, other = (
        show_augmentations(
            data, augmentations="mixing", seed=seed, out=tmp_path / f"{n}.png"
        ).read_bytes()
        for n, seed in enumerate((2, 2, 5))
    )
    assert one == again != other


def test_an_image_without_a_label_can_be_shown(data: Path, tmp_path: Path) -> None:
    names = sorted(path.stem for path in (data / "unlabelled").iterdir())
    out = tmp_path / "sheet.png"
    show_augmentations(data, augmentations="mixing", image=f"unlabelled/{names[0]}", out=out)
    assert out.is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--augmentations", "mixin"], "(got 'mixin'); did you mean 'mixing'?"),
        (["--image", "nothing"], "no image named 'nothing'"),
        (["--out", "sheet.jpg"], "--out must end in .png (got sheet.jpg)"),
        (
            ["--objects", "nowhere", "--augmentations", "mixing"],
            "nowhere does not exist: leave out --objects",
        ),
        (
            ["--objects", "nowhere"],
            "--objects is for --augmentations strong, mixing or objects, not for augin: leave it",
        ),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["show", str(data), "--out", "sheet.png", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_one_labelled_image_has_no_partner(
    fake_data: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = fake_data.plain(tmp_path / "data")
    (name,) = (data / "splits" / "train.txt").read_text().split()[:1]
    (data / "splits" / "train.txt").write_text(f"{name}\n")
    out = str(tmp_path / "sheet.png")
    assert main(["show", str(data), "--image", name, "--out", out]) == 2
    assert "the train split needs a second labelled image as the partner" in capsys.readouterr().err
