"""Opens the split that a model is scored or calibrated on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s5mars.classes import Taxonomy, require_same_classes
from s5mars.data.dataset import Dataset
from s5mars.data.trained_on import dataset_of, labelled_names
from s5mars.evaluation.class_map import ClassMap, MappedClasses
from s5mars.models.checkpoint import LoadedModel
from s5mars.predict.inference import Inference
from s5mars.predict.predictor import Predictor
from s5mars.types import Sample


@dataclass(frozen=True)
class OpenedSplit:
    """A model and the labelled images of a split."""

    loaded: LoadedModel[Any]
    predictor: Predictor
    dataset: Dataset
    name: str
    samples: tuple[Sample, ...]
    trained_on: int  # number of samples whose labels the model was trained on
    mapped: MappedClasses | None  # None if model and data have the same classes

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes that are scored."""
        return self.loaded.taxonomy if self.mapped is None else self.mapped.taxonomy


def open_split(
    run: str | Path,
    loaded: LoadedModel[Any],
    split: str,
    *,
    data: str | Path | None,
    splits: Path | None,
    inference: Inference,
    class_map: ClassMap | None = None,
    remedy: str = "give data with the same classes in this order",
) -> OpenedSplit:
    """Open a split of a data set with the classes of a model, and the predictor of the model.

    Args:
        run: path or name of the model, for its list of labelled images and for messages.
        data: path to the data set; None is the one that the model was trained on.
        splits: folder of the split lists (see ``data.trained_on``).
        class_map: for data with other classes.
        remedy: end of the message if the classes differ and there is no class map.

    Raises:
        MissingFileError: if the data or one of its files is missing.
        UserError: if the split does not exist, the classes differ, the map does not fit, the device
            does not exist, or a file is damaged.
    """
    facts = loaded.facts.get("training") or {}
    dataset = dataset_of(run, facts, data=data, splits=splits)
    samples = dataset.split(split)
    mapped = None
    if class_map is None:
        require_same_classes(
            loaded.taxonomy, dataset.taxonomy, run=Path(run), data=dataset.root, remedy=remedy
        )
    else:
        mapped = class_map.between(loaded.taxonomy, dataset.taxonomy)
    labelled = labelled_names(run, facts, dataset)
    return OpenedSplit(
        loaded,
        Predictor.of(loaded, inference),
        dataset,
        split,
        samples,
        trained_on=sum(sample.name in labelled for sample in samples),
        mapped=mapped,
    )
