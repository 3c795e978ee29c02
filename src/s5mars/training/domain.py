"""Record the training images after training, so that predictions can warn of other images."""

from __future__ import annotations

from pathlib import Path

from s5mars.models.checkpoint import checkpoint_path, load_model, read_facts, write_domain
from s5mars.predict.describe import describe_images
from s5mars.predict.inference import Inference
from s5mars.predict.predictor import Predictor
from s5mars.training.streams import Streams

_DEVICES = {"auto": "auto", "gpu": "cuda", "cuda": "cuda", "mps": "mps"}
"""Lightning's name of an accelerator → torch's; the CPU is used for others."""


def has_domain(run: Path) -> bool:
    """Whether the best weights of a run have a record of its training images, or do not exist."""
    if not (run / "best.safetensors").is_file():
        return True
    return read_facts(checkpoint_path(run)).get("domain") is not None


def record_domain(run: Path, streams: Streams, *, accelerator: str) -> None:
    """Measure the training images with the best weights, and add the record to these.

    Labelled images and the pool count; ``s5mars.predict.describe`` says how many are measured.

    Args:
        run: run folder.
        streams: images of the run.
        accelerator: Lightning's name of where the run was trained.
    """
    loaded = load_model(run)
    predictor = Predictor.of(loaded, Inference(device=_DEVICES.get(accelerator, "cpu")))
    paths = {sample.image for sample in (*streams.labelled, *(streams.pool or ()))}
    write_domain(run, describe_images(predictor, list(paths), network=loaded.network))
