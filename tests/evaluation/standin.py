"""A network whose answer is the image itself, and a small data set made for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from s5mars.classes import IGNORE, Class, Taxonomy
from s5mars.types import Sample

TINTS = Taxonomy(
    "tints",
    (
        Class("sand", (200, 180, 0)),
        Class("rock", (200, 0, 0)),
        Class("sky", (0, 100, 200)),
        Class("ridge", (100, 0, 200)),
    ),
)


class Tint(nn.Module):
    """Class k where the red channel is 50·k; remembers what it was shown."""

    def __init__(self, classes: int = len(TINTS)) -> None:
        super().__init__()
        self.levels = nn.Parameter(50.0 * torch.arange(classes))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.shapes.append(tuple(image.shape[2:]))
        return -((image[:, :1].float() - self.levels[None, :, None, None]) ** 2) / 100


def write_image(path: Path, predicted: np.ndarray) -> None:
    """A PNG for which ``Tint`` answers ``predicted``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*predicted.shape, 3), 90, np.uint8)
    pixels[..., 0] = 50 * predicted
    Image.fromarray(pixels).save(path)


def write_mask(path: Path, truth: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(truth.astype(np.uint8)).save(path)


def sample(root: Path, name: str, truth: np.ndarray, predicted: np.ndarray) -> Sample:
    write_image(root / f"images/{name}.png", predicted)
    write_mask(root / f"masks/{name}.png", truth)
    return Sample(name, root / f"images/{name}.png", root / f"masks/{name}.png")


def maps(seed: int, height: int = 48, width: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """(truth with ignored pixels, prediction that is right on about two thirds)."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, len(TINTS), (height, width)).astype(np.uint8)
    wrong = random.random(truth.shape) < 1 / 3
    predicted = np.where(wrong, random.integers(0, len(TINTS), truth.shape), truth).astype(np.uint8)
    truth[random.random(truth.shape) < 0.2] = IGNORE
    return truth, predicted
