"""From a checkpoint on disk to a predictor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from s5mars.data.layouts import open_dataset
from s5mars.errors import UserError
from s5mars.models.checkpoint import save_model
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.predict.archive import predict_images
from s5mars.predict.find import find
from s5mars.predict.predictor import Predictor, load

from .standin import THREE, Brightness


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    networks = {}
    for seed, name in enumerate(("student", "teacher")):
        torch.manual_seed(seed)
        networks[name] = DeepLabV3Plus("mobilenetv3_small_050", 3, weights="none").eval()
    save_model(folder / "best.safetensors", networks, taxonomy=THREE, training={"seed": 0})
    return folder


def test_run_folder_and_file_give_the_same_network(run: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    predictor = load(run, window=64, batch=2)
    assert predictor.taxonomy == THREE and predictor.inference.window == 64
    labels, probabilities = predictor.predict(image, probabilities=True)
    assert labels.shape == (70, 90)
    again = load(run / "best.safetensors", window=64).predict(image, probabilities=True)[1]
    np.testing.assert_allclose(probabilities, again, atol=1e-5)
    student = load(run, network="student", window=64).predict(image, probabilities=True)[1]
    assert np.abs(probabilities - student).max() > 1e-4


@pytest.mark.parametrize(("path", "said"), [("", "is empty"), ("a\0b", "contains a zero byte")])
def test_paths_that_name_nothing(path: str, said: str, tmp_path: Path) -> None:
    predictor = Predictor(Brightness(), THREE)
    for call in (
        load,
        open_dataset,
        predictor.predict,
        lambda path: find(path, "dark > 0"),
        lambda path: predict_images(predictor, [path], out=tmp_path),
        lambda path: predict_images(predictor, [tmp_path], out=path),
    ):
        with pytest.raises(UserError, match=f"the path .*{said}"):
            call(path)


def test_what_is_not_there_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"^network must be one of teacher, student"):
        load(run, network="pupil")
