"""Fit class biases on the selection split after training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from s5mars.data.dataset import Dataset
from s5mars.data.stratify import label_areas
from s5mars.devices import device_of
from s5mars.evaluation.class_biases import (
    FEWEST_IMAGES,
    class_biases_entry,
    describe_class_biases,
    no_biases,
)
from s5mars.evaluation.reliability import collect_pixels
from s5mars.files.run_folder import TENSORS
from s5mars.models.checkpoint import load_model
from s5mars.models.facts import checkpoint_path, read_facts, write_class_biases
from s5mars.predict.inference import Inference
from s5mars.predict.predictor import Predictor
from s5mars.settings.config import TrainConfig
from s5mars.training.streams import Streams


def lacks_class_biases(run: Path, config: TrainConfig) -> bool:
    """Whether a run wants class biases, and its best weights have no record of them."""
    if config.class_biases == "none" or not (run / TENSORS).is_file():
        return False
    return read_facts(checkpoint_path(run)).get("class_biases") is None


def no_class_biases(config: TrainConfig, streams: Streams) -> str:
    """Why a run that wants class biases gets none, as far as the number of images says; else ""."""
    count = len(streams.selection)
    if config.class_biases == "none" or count >= FEWEST_IMAGES:
        return ""
    return _too_few(f"{count} images", config)


def add_class_biases(run: Path, config: TrainConfig, dataset: Dataset, streams: Streams) -> None:
    """Fit the class biases of the best weights, add them to these, and print them.

    If the selection split has too few labelled images, the record says so.
    """
    names = dataset.taxonomy.names
    areas, _ = label_areas(streams.selection, dataset.coding, len(names))
    labelled = int(areas.any(1).sum())
    if labelled < FEWEST_IMAGES:
        network = read_facts(checkpoint_path(run))["training"]["network"]
        entry = no_biases(len(names), _too_few(f"{labelled} labelled images", config))
    else:
        loaded = load_model(run)
        network = loaded.network
        predictor = Predictor.of(loaded, Inference(device=device_of(config.accelerator)))
        samples = streams.selection
        with tqdm(total=len(samples), unit="image", desc="class biases", disable=None) as bar:
            pixels = collect_pixels(predictor, samples, dataset.coding, progress=bar.update)
        sampled = len(np.unique(pixels.image))
        if sampled < FEWEST_IMAGES:  # others have few labelled pixels, of which none was drawn
            found = f"{sampled} images with enough labelled pixels"
            entry = no_biases(len(names), _too_few(found, config))
        else:
            entry = class_biases_entry(pixels, split=config.select_on)
    write_class_biases(run, network, entry)
    if not no_class_biases(config, streams):  # else the plan has said it
        print(f"class biases: {describe_class_biases(entry, names)}")


def _too_few(found: str, config: TrainConfig) -> str:
    return f"the {config.select_on} split has {found} and {FEWEST_IMAGES} are needed"
