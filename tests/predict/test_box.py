"""Installed models: found by name, told from images, and never written to."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

import s5mars
from boxed import TERRAIN, grey
from s5mars.cli import main
from s5mars.data.resolution import Resolution
from s5mars.errors import MissingFileError, UserError
from s5mars.models import box
from s5mars.models.checkpoint import load_model
from s5mars.models.opened import is_model, model_and_images, result_path


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two images, below the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for seed in range(2):
        Image.fromarray(grey(seed)).save(tmp_path / f"images/{seed}.png")
    return Path("images")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("readers_here")
def test_predict_without_a_model(
    navcam: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(images), "--out", "maps"]) == 0
    assert "model: navcam; classes: soil, rock\n" in capsys.readouterr().err
    assert len(list(Path("maps").glob("?.png"))) == 2
    # Options may stand between the arguments, and a model of one's own before the images.
    shutil.copytree(navcam, "run")
    assert main(["predict", "run", "--out", "more", str(images / "0.png")]) == 0
    assert "model:" not in capsys.readouterr().err
    assert [path.name for path in Path("more").glob("?.png")] == ["0.png"]
    assert main(["predict", "navcam", str(images), "--out", "same"]) == 0
    assert Path("same/1.png").read_bytes() == Path("maps/1.png").read_bytes()


def test_a_model_or_an_image(navcam: Path, images: Path) -> None:
    image = str(images / "0.png")
    assert model_and_images(None, [image]) == ("navcam", [image])
    assert model_and_images(image, [str(images)]) == ("navcam", [image, str(images)])
    unfinished = Path("unfinished")
    unfinished.mkdir()
    (unfinished / "config.yaml").touch()
    # A run without weights is a model, so that it is not taken for a folder of images.
    for model in ("navcam", "hf:me/mars", "a.onnx", "a/best.safetensors", "unfinished", navcam):
        assert is_model(model)
        assert model_and_images(str(model), [image]) == (str(model), [image])
        with pytest.raises(UserError, match="is a model; give images"):
            model_and_images(None, [str(model)])
    with pytest.raises(MissingFileError, match="typo is neither a model nor an image"):
        model_and_images("typo", [image])


def test_a_folder_of_images_with_the_name_of_a_model(navcam: Path, images: Path) -> None:
    images.rename("navcam")
    assert model_and_images(None, ["navcam"]) == ("navcam", ["navcam"])
    assert load_model("navcam").taxonomy == TERRAIN


def test_two_folders_of_images_with_the_names_of_models(navcam: Path, images: Path) -> None:
    images.rename("navcam")
    with pytest.raises(UserError, match=r"navcam is an installed model and also a folder of imag"):
        model_and_images("navcam", ["navcam"])
    assert model_and_images("./navcam", ["more"])[1:] == (["./navcam", "more"],)
    for image in Path("navcam").iterdir():
        image.unlink()
    assert model_and_images("navcam", ["more"]) == ("navcam", ["more"])


def test_a_model_after_the_images(navcam: Path, images: Path) -> None:
    said = "is a model, which must come first: s5mars predict .* IMAGES"
    for model in (str(navcam), "a.onnx", "navcam"):
        with pytest.raises(UserError, match=said):
            model_and_images(str(images), [str(images), model])


def test_a_run_with_the_name_of_a_model_goes_first(navcam: Path, images: Path) -> None:
    shutil.copytree(navcam, "navcam")
    Path("navcam/best.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"navcam/best\.safetensors"):
        load_model("navcam")


def test_nothing_installed(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "BOX", Path("nothing"))
    assert box.installed() == []
    assert main(["models"]) == 0
    with pytest.raises(UserError, match="navcam is not installed; give a model before the images"):
        model_and_images(None, [str(images)])
    with pytest.raises(MissingFileError, match="does not exist; give a run folder or a checkpoint"):
        s5mars.load("navcam")


def test_list_and_card(navcam: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    size = sum(len(content) for content in contents(navcam).values()) / 1e6
    assert f"navcam  ({size:.1f} MB)" in said
    for line in (
        "classes     soil, rock",
        "trained on  20 patches (grey images of MSL Navcam, 64 pixels)",
        "scores      mIoU 12.3 %, pixel accuracy 56.8 % on nothing",
        "licence     apache-2.0",
        "`s5mars predict IMAGES --out maps` uses navcam.",
    ):
        assert line in said
    assert main(["models", "navcam"]) == 0
    assert capsys.readouterr().out == "# navcam\n\nA card.\n"
    assert main(["models", "mastcam"]) == 2
    assert "the name 'mastcam'; installed: navcam" in capsys.readouterr().err


def test_the_package_is_not_written_to(
    navcam: Path,
    tmp_path: Path,
    fake_data: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(navcam)
    data = fake_data.plain(tmp_path / "data", images=8)
    (data / "dataset.yaml").write_text(
        "name: two\nignore: [255]\n"
        "classes: [{name: soil, ids: [0]}, {name: rock, ids: [1, 2, 3, 4, 5, 6, 7, 8, 9]}]\n"
    )
    assert main(["evaluate", "navcam", "--data", str(data), "--split", "val"]) == 0
    assert Path("navcam.cross-data-same-classes-val-full.json").is_file()
    assert result_path(navcam, "a.json") == Path("navcam.a.json")
    for model in ("navcam", str(navcam)):
        assert main(["calibrate", model, "--data", str(data)]) == 2
        assert "calibrate a copy of the folder" in capsys.readouterr().err
    assert main(["report", "navcam"]) == 2
    assert "`s5mars models navcam` prints its card" in capsys.readouterr().err
    assert contents(navcam) == before


def test_export_by_name(navcam: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    before = contents(navcam)
    assert main(["export", "navcam", "--images", str(images)]) == 0
    predictor = s5mars.load("navcam.model.onnx")
    assert contents(navcam) == before
    # Without the network's features, colour and camera still tell.
    assert predictor.domain is not None and predictor.domain.features is None
    assert predictor.segment(grey(0)).verdict == s5mars.models.domain.Verdict()
    red = grey(0) * torch.tensor([1, 0, 0], dtype=torch.uint8).numpy()
    assert predictor.segment(red).verdict.reasons == ("colour image",)


def test_the_models_of_this_package_open() -> None:
    """Whatever is installed fits, is small, and has a card."""
    for name in box.installed():
        folder = box.installed_folder(name)
        assert folder is not None
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 12_000_000
        loaded = load_model(name)
        assert loaded.domain is not None and loaded.domain.features is not None
        assert loaded.resolution != Resolution()
        assert (folder / box.CARD).read_text(encoding="utf-8").startswith(f"# {name}\n")
        training = loaded.facts["training"]
        assert Path(training["data"]).name == training["data"]
