"""A tiny model with the files of an installed one, which knows grey images of Navcam."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from s5mars.classes import Class, Taxonomy
from s5mars.files import write_json, write_text
from s5mars.files.run_folder import FACTS, TENSORS
from s5mars.models.box import CARD
from s5mars.models.checkpoint import save_model, write_domain
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.models.domain import Domain, FeatureCloud
from s5mars.models.facts import read_facts
from s5mars.predict.predictor import load

TERRAIN = Taxonomy("terrain", (Class("soil", (160, 82, 45)), Class("rock", (220, 0, 0))))


def grey(seed: int, side: int = 64) -> np.ndarray:
    """(H, W, 3) uint8: coarse grey patches with a little noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(60, 180, (side // 8, side // 8))
    patches = np.repeat(np.repeat(coarse, 8, 0), 8, 1) + random.integers(0, 10, (side, side))
    return np.repeat(patches.astype(np.uint8)[:, :, None], 3, 2)


def write_model(folder: Path) -> Path:
    torch.manual_seed(0)
    network = DeepLabV3Plus("mobilenetv3_small_050", len(TERRAIN), weights="none").eval()
    training = {"method": "supervised", "data": "/some/where/mars"}
    save_model(folder / TENSORS, {"student": network}, taxonomy=TERRAIN, training=training)
    predictor = load(folder)
    cloud = FeatureCloud.fit(np.stack([predictor.features(grey(seed)) for seed in range(20)]))
    domain = Domain(
        images=20, colour=0.0, cameras={"MSL Navcam": 20}, sides=(64, 64), shape=1.0, features=cloud
    )
    write_domain(folder, domain)
    about = {
        "data": "20 patches", "licence": "apache-2.0",
        "scores": [{"on": "nothing", "mIoU": 12.34, "pixel_accuracy": 56.78}],
    }  # fmt: skip
    write_json(folder / FACTS, {**read_facts(folder / TENSORS), "about": about})
    write_text(folder / CARD, "# navcam\n\nA card.\n")
    return folder
