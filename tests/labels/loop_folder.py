"""A folder to paint, small enough to be quick."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from s5mars.classes import Taxonomy
from s5mars.labels.loop.folder import named_classes, open_folder
from s5mars.labels.loop.store import Store

CLASSES = named_classes("sky,soil,rock")
BY = "me"


def scene(seed: int, size: tuple[int, int] = (64, 48)) -> tuple[np.ndarray, np.ndarray]:
    """A blue sky over red ground with a grey rock: (H, W, 3) uint8 and (H, W) class index."""
    width, height = size
    random = np.random.default_rng(seed)
    label = np.ones((height, width), np.uint8)
    label[: height // 3] = 0
    x = int(random.integers(4, max(5, width // 2)))
    label[height // 2 : 3 * height // 4, x : x + width // 4] = 2
    colours = np.array([(120, 160, 220), (170, 90, 50), (90, 90, 95)])
    image = colours[label] + random.integers(-10, 11, (height, width, 1))
    return image.clip(0, 255).astype(np.uint8), label


def write_images(root: Path, count: int = 4, size: tuple[int, int] = (64, 48)) -> Path:
    """A folder with ``images/`` and nothing else."""
    (root / "images").mkdir(parents=True)
    for number in range(count):
        Image.fromarray(scene(number, size)[0]).save(root / "images" / f"sol{number}.png")
    return root


def open_store(root: Path, classes: Taxonomy | None = CLASSES) -> Store:
    """The store of a folder."""
    return Store(open_folder(root, classes))


def rectangle(x: int, y: int, width: int, height: int, value: int) -> dict[str, list[int]]:
    """A stroke that fills a rectangle."""
    return {"box": [x, y, width, height], "runs": [width * height, value]}


def paint(store: Store, name: str, x: int, y: int, width: int, height: int, value: int) -> int:
    """Paint a rectangle on the newest version; the size of the images is 64×48."""
    version = store.open(name, (48, 64)).version
    return store.paint(name, version, **rectangle(x, y, width, height, value), tool="brush", by=BY)
