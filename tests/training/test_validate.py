"""Scores during training, where the answer is known because brightness is the class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from s5mars.classes import Class, MaskCoding, Taxonomy
from s5mars.evaluation.confusion import Confusion
from s5mars.predict.predictor import Predictor
from s5mars.training.validate import pseudo_label_record, validate
from s5mars.types import Sample

SIDE = 40
TAXONOMY = Taxonomy("two", (Class("dark", (9, 9, 9)), Class("bright", (200, 200, 200))))
CODING = MaskCoding({0: 0, 1: 1}, frozenset({7}))


class Brightness(nn.Module):
    """The probability of class 1 is the red channel."""

    def forward(self, image: Tensor) -> Tensor:
        bright = (image[:, :1].float() / 255).clamp(1e-6, 1 - 1e-6)
        return torch.cat([1 - bright, bright], 1).log()


PREDICTOR = Predictor(Brightness(), TAXONOMY, window=64)


def sample(folder: Path, name: str, columns: list[tuple[float, int]]) -> Sample:
    """Ten columns for each (probability of bright, id in the mask)."""
    probability = np.repeat([p for p, _ in columns], 10)
    ids = np.repeat([i for _, i in columns], 10)
    image = np.repeat((probability * 255).round().astype(np.uint8)[None, :, None], 3, 2)
    paths = folder / f"{name}.png", folder / f"{name}_mask.png"
    Image.fromarray(np.repeat(image, SIDE, 0)).save(paths[0])
    Image.fromarray(np.repeat(ids.astype(np.uint8)[None], SIDE, 0)).save(paths[1])
    return Sample(name, *paths)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return [
        sample(tmp_path, "a", [(0.9, 1), (0.1, 0), (0.6, 1), (0.6, 0)]),
        sample(tmp_path, "b", [(0.9, 0), (0.2, 0), (0.9, 7), (0.1, 7)]),
        sample(tmp_path, "c", [(0.25, 1), (0.4, 0), (0.8, 1), (0.5, 7)]),
    ]


COLUMNS = 10 * SIDE


def test_counts_labelled_and_confident_pixels(samples: list[Sample]) -> None:
    everything, confident = validate(PREDICTOR, samples, CODING)
    # truth dark: 0.1, 0.6, 0.9, 0.2, 0.4; truth bright: 0.9, 0.6, 0.25, 0.8
    assert (everything.matrix == COLUMNS * np.array([[3, 2], [1, 3]])).all()
    # Confident are all but 0.6 and 0.4.
    assert (confident.matrix == COLUMNS * np.array([[2, 1], [1, 2]])).all()


def test_processes_share_the_images(samples: list[Sample]) -> None:
    whole = validate(PREDICTOR, samples, CODING)
    for world in (2, 3, 5):
        parts = [validate(PREDICTOR, samples, CODING, rank=r, world=world) for r in range(world)]
        for index in (0, 1):
            assert sum((p[index] for p in parts), Confusion(2)) == whole[index]


def test_record_of_pseudo_labels() -> None:
    everything = Confusion(2, matrix=[[60, 20], [10, 30]])
    confident = Confusion(2, matrix=[[30, 5], [0, 15]])
    record = pseudo_label_record(everything, confident, TAXONOMY)
    assert record["accuracy"] == pytest.approx(45 / 50)
    assert record["confident_share"] == pytest.approx(50 / 120)
    dark, bright = record["classes"]["dark"], record["classes"]["bright"]
    assert dark == pytest.approx({"accuracy": 1, "share": 30 / 70, "predicted": 30 / 50})
    assert bright == pytest.approx({"accuracy": 15 / 20, "share": 20 / 50, "predicted": 20 / 50})


def test_record_of_nothing() -> None:
    record = pseudo_label_record(Confusion(2), Confusion(2), TAXONOMY)
    assert record["accuracy"] is None and record["confident_share"] is None
    assert set(record["classes"]["dark"].values()) == {None}


def test_nothing_labelled_counts_nothing(tmp_path: Path) -> None:
    blank = sample(tmp_path, "blank", [(0.9, 7), (0.1, 7)])
    everything, confident = validate(PREDICTOR, [blank], CODING)
    assert not everything.matrix.any() and not confident.matrix.any()
