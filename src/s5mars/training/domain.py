"""Record the training images after training, so that predictions can warn of other images."""

from __future__ import annotations

from pathlib import Path

from s5mars.devices import device_of
from s5mars.files.run_folder import TENSORS
from s5mars.models.checkpoint import load_model, write_domain
from s5mars.models.facts import checkpoint_path, read_facts
from s5mars.predict.describe import describe_images
from s5mars.predict.inference import Inference
from s5mars.predict.predictor import Predictor
from s5mars.training.streams import Streams


def has_domain(run: Path) -> bool:
    """Whether the best weights of a run have a record of its training images, or do not exist."""
    if not (run / TENSORS).is_file():
        return True
    return read_facts(checkpoint_path(run)).get("domain") is not None


def record_domain(run: Path, streams: Streams, *, accelerator: str) -> None:
    """Measure the labelled images and the pool with the best weights, and add the record to these.

    ``accelerator`` is Lightning's name of where the run was trained. ``predict.describe`` says how
    many images are measured.
    """
    loaded = load_model(run)
    predictor = Predictor.of(loaded, Inference(device=device_of(accelerator)))
    # Not a set, whose order differs from process to process: names may be equal in two folders.
    paths = dict.fromkeys(sample.image for sample in (*streams.labelled, *(streams.pool or ())))
    write_domain(run, describe_images(predictor, list(paths), network=loaded.network))
