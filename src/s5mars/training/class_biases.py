"""Fit class biases on the selection split after training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from s5mars.data.dataset import Dataset
from s5mars.devices import device_of
from s5mars.evaluation.class_biases import (
    FEWEST_IMAGES,
    class_biases_entry,
    describe_class_biases,
)
from s5mars.evaluation.reliability import collect_pixels
from s5mars.models.checkpoint import checkpoint_path, load_model, read_facts, write_class_biases
from s5mars.predict.inference import Inference
from s5mars.predict.predictor import Predictor
from s5mars.settings.config import TrainConfig
from s5mars.training.streams import Streams


def lacks_class_biases(run: Path, config: TrainConfig) -> bool:
    """Whether a run wants class biases, and its best weights have no record of them."""
    if config.class_biases == "none" or not (run / "best.safetensors").is_file():
        return False
    return read_facts(checkpoint_path(run)).get("class_biases") is None


def no_class_biases(config: TrainConfig, streams: Streams) -> str:
    """Why a run with a selection split that wants class biases gets none; else ""."""
    count = len(streams.selection)
    if config.class_biases == "none" or not 0 < count < FEWEST_IMAGES:
        return ""
    return (
        f"none, because the {config.select_on} split has {count} images and {FEWEST_IMAGES} are "
        "needed"
    )


def add_class_biases(run: Path, config: TrainConfig, dataset: Dataset, streams: Streams) -> None:
    """Fit the class biases of the best weights, add them to these, and print them.

    Nothing is done if the selection split has too few images.
    """
    if len(streams.selection) < FEWEST_IMAGES:
        return
    loaded = load_model(run)
    predictor = Predictor.of(loaded, Inference(device=device_of(config.accelerator)))
    pixels = collect_pixels(predictor, streams.selection, dataset.coding)
    if len(np.unique(pixels.image)) < FEWEST_IMAGES:
        return
    entry = class_biases_entry(pixels, split=config.select_on)
    write_class_biases(run, loaded.network, entry)
    print(describe_class_biases(entry, dataset.taxonomy.names))
