"""Small networks with answers that vary, and a run that holds one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from s5mars.classes import Class, Taxonomy
from s5mars.data.resolution import Resolution
from s5mars.models.checkpoint import save_model
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.models.facts import write_calibration

THREE = Taxonomy(
    "three",
    (
        Class("dark | low", (200, 0, 0), "in the shade"),
        Class("middle", (0, 200, 0)),
        Class("bright", (0, 0, 200)),
    ),
)
TINY = "mobilenetv3_small_050"


def network(encoder: str = TINY, *, seed: int = 0) -> DeepLabV3Plus:
    """Untrained, but its normalisation has seen images and its logits are far from each other."""
    torch.manual_seed(seed)
    model = DeepLabV3Plus(encoder, len(THREE), weights="none")
    images = torch.from_numpy(np.stack([picture(s, 64, 64) for s in range(4)])).permute(0, 3, 1, 2)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # plain averages
        model.train()
        for _ in range(2):
            model(images)
        model.eval()
        logits = model(images)
        model.classifier.bias.sub_(logits.mean((0, 2, 3)))
        model.classifier.weight.mul_(2 / logits.std())
        model.classifier.bias.mul_(2 / logits.std())
    return model


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: coarse patches and some noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 200, (height // 16 + 1, width // 16 + 1, 3))
    patches = np.repeat(np.repeat(coarse, 16, 0), 16, 1)[:height, :width]
    return (patches + random.integers(0, 50, patches.shape)).astype(np.uint8)


def run(
    folder: Path,
    *,
    temperature: float | None = None,
    data: str = "/some/where/mars",
    splits: str | None = None,
    resolution: str = "full",
) -> Path:
    networks = {"student": network(seed=1), "teacher": network(seed=2)}
    training = {
        "method": "s5mars", "seed": 3, "step": 40, "total_steps": 50, "data": data,
        "splits": splits, "dataset": "mars", "layout": "plain", "labelled": 0.25,
        "labelled_images": 5,
        "train_images": 20, "pool_images": 20, "split_for_selection": "val", "batch": 4,
        "crop": 64, "encoder_weights": "encoder weights: none", "validation": {"mIoU": 41.5},
    }  # fmt: skip
    save_model(
        folder / "best.safetensors",
        networks,
        taxonomy=THREE,
        training=training,
        resolution=Resolution.parse(resolution),
    )
    if temperature is not None:
        write_calibration(folder, "teacher", {"temperature": temperature, "data": data})
    return folder
