"""Self-training in three stages: the first two runs, and the ranking of the pool between them.

``RUN/stages/labels`` is trained on labels alone, ``RUN/stages/reliable`` on labels and the reliable
half of the pool, and RUN itself on labels and the whole pool, see ``methods/self_training.py``.
Each is an ordinary run that can be resumed, scored and loaded separately.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from s5mars.classes import IGNORE, Taxonomy, require_same_classes
from s5mars.data.layouts.files import read_names
from s5mars.data.names import as_lines
from s5mars.data.read import open_hidden, open_image, without_data
from s5mars.data.resolution import Resolution
from s5mars.devices import device_of
from s5mars.errors import UserError
from s5mars.evaluation.confusion import Confusion
from s5mars.files import write_text
from s5mars.files.reading import read_object, read_yaml
from s5mars.files.run_folder import CONFIG, LABELLED, METRICS
from s5mars.files.spreadsheet import csv_text
from s5mars.methods.supervised import Supervised
from s5mars.models.checkpoint import load_model
from s5mars.models.network import SegmentationNetwork
from s5mars.predict.inference import Inference
from s5mars.predict.predictor import Predictor
from s5mars.settings.config import TrainConfig
from s5mars.settings.parsing import with_changes
from s5mars.training.snapshots import snapshots
from s5mars.types import Method, Sample

CHECKPOINTS = 3
"""Number of checkpoints of the first stage that rank the pool: at 1/3, 2/3 and 3/3 of it."""

RANKING = "reliability.csv"
RELIABLE = "reliable.txt"


@dataclass(frozen=True)
class Stage:
    """Record of an earlier stage in ``metrics.json`` of the last stage."""

    name: str
    steps: int
    pool_images: int
    pool_crops: int
    seconds: float
    best: dict[str, Any] | None


def trains_in_stages(config: TrainConfig, method: Method) -> bool:
    """Whether a run must first train the network that labels its pool."""
    return method.needs.given_teacher and config.teacher is None


def steps_of_last(total: int) -> int:
    """Steps of the last of three stages that have ``total`` steps together.

    Raises:
        UserError: if a stage would be too short for the checkpoints that rank the pool.
    """
    if total < 3 * CHECKPOINTS:
        raise UserError(
            f"--steps must be at least {3 * CHECKPOINTS} (got {total}), because self_training "
            "divides them among three stages"
        )
    return total - 2 * (total // 3)


def earlier_stages(
    run: Path, config: TrainConfig, method: Method, pool: Sequence[Sample], *, steps: int
) -> Iterator[tuple[TrainConfig, Method, str]]:
    """Settings, method and ``config.yaml`` of the first two stages, of ``steps`` each.

    The caller trains the first one before it asks for the second, which needs the ranking of the
    pool. Run folder, settings and pool are those of the last stage.
    """
    folder = run / "stages"
    first = replace(
        config,
        method="supervised",
        labelled=str(run / LABELLED),
        pool="all",
        steps=steps,
        epochs=None,
        out=folder / "labels",
        snapshots=CHECKPOINTS,
        class_biases="none",
    )
    yield first, Supervised(), _text(run, config, first)
    reliable = folder / RELIABLE
    known = {sample.name for sample in pool}
    listed = read_names(reliable) if reliable.is_file() else []
    left = [name for name in listed if name in known]  # some may have been removed since
    if not left:
        _rank(first, pool, folder)
    elif len(left) < len(listed):
        write_text(reliable, as_lines(left))
    second = replace(
        first,
        method=config.method,
        pool=str(reliable),
        teacher=first.out,
        out=folder / "reliable",
        snapshots=config.snapshots,
    )
    yield second, method, _text(run, config, second)


def stages_of(run: Path) -> list[Stage]:
    """Records of the earlier stages of a run; empty for a run without stages."""
    found = []
    for name in ("labels", "reliable"):
        path = run / "stages" / name / METRICS
        if path.is_file():
            metrics = {**read_object(path), "name": name}
            found.append(Stage(**{field.name: metrics[field.name] for field in fields(Stage)}))
    return found


def reliability(predictions: Sequence[NDArray[np.uint8]], *, classes: int) -> float:
    """Agreement of the earlier checkpoints with the last one on an image, in [0, 1].

    Args:
        predictions: (H, W) class indices of each checkpoint, the last one last.
        classes: their number.

    Returns:
        The mean over the earlier ones of the mIoU with the last. A class counts where either of
        the two sees it, other than in a score, which knows what is there. Pixels that are IGNORE in
        the last prediction do not count; 0 where no pixel does.
    """
    *earlier, last = predictions
    return float(np.mean([_agreement(each, last, classes) for each in earlier]))


def _agreement(one: NDArray[np.uint8], other: NDArray[np.uint8], classes: int) -> float:
    confusion = Confusion(classes)
    confusion.update(other, one)
    both = np.diag(confusion.matrix)
    either = confusion.matrix.sum(0) + confusion.matrix.sum(1) - both
    return float((both[either > 0] / either[either > 0]).mean()) if either.any() else 0.0


def _rank(first: TrainConfig, pool: Sequence[Sample], folder: Path) -> None:
    """Write the pool in the order of its reliability, and its first half."""
    inference = Inference(device=device_of(first.accelerator))
    predictors = [Predictor.of(load_model(path), inference) for path in snapshots(first.out)]
    ranked = []
    for sample in tqdm(pool, unit="image", desc="rank the pool", disable=None):
        image = open_image(sample.image)
        said = [predictor.predict(np.asarray(image)) for predictor in predictors]
        said[-1][_excluded_pixels(sample, image)] = IGNORE
        value = reliability(said, classes=len(predictors[0].taxonomy))
        ranked.append((sample.name, value))
    ranked.sort(key=lambda each: -each[1])
    table = [("name", "reliability"), *((name, f"{value:.6f}") for name, value in ranked)]
    write_text(folder / RANKING, csv_text(table))
    half = ranked[: max(1, len(ranked) // 2)]
    write_text(folder / RELIABLE, as_lines(name for name, _ in half))  # last: it says all is done


def _excluded_pixels(sample: Sample, image: Image.Image) -> NDArray[np.bool_]:
    """(H, W): pixels that no loss counts: without data, or hidden, such as the rover."""
    hidden = np.asarray(open_hidden(sample, size=image.size), np.bool_)
    return without_data(image) | hidden


def _text(run: Path, config: TrainConfig, stage: TrainConfig) -> str:
    """``config.yaml`` of a stage: that of the run, with the fields in which the stage differs."""
    content = dict(read_yaml(run / CONFIG))
    own = content.pop("self_training", None)
    if stage.method == "self_training":
        content["self_training"] = own
    return with_changes(yaml.safe_dump(content, sort_keys=False), config, stage)


def given_teacher(
    path: Path, taxonomy: Taxonomy, *, data: Path, resolution: Resolution
) -> SegmentationNetwork:
    """The network that labels the pool: the scored one of a run, frozen, without class biases.

    Raises:
        MissingFileError: if there is none.
        UserError: if it is damaged, knows other classes than the data, or saw images at another
            resolution than this run does.
    """
    loaded = load_model(path)
    remedy = "give a teacher that was trained on the same classes"
    require_same_classes(loaded.taxonomy, taxonomy, run=path, data=data, remedy=remedy)
    if loaded.resolution != resolution:
        raise UserError(
            f"teacher {path} was trained with --resolution {loaded.resolution}, but this run has "
            f"{resolution}; use the same one"
        )
    return loaded.model
