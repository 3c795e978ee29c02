"""s5mars: terrain maps from Mars rover images with few, sparse labels.

>>> import s5mars
>>> run = s5mars.train("path/to/folder")                   # doctest: +SKIP
>>> run.evaluate()                                         # doctest: +SKIP
>>> run.predict("image.jpg").show()                        # doctest: +SKIP
>>> labels = s5mars.load("navcam").predict(image)          # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s5mars.api import Comparison as Comparison
    from s5mars.api import Run as Run
    from s5mars.api import Scores as Scores
    from s5mars.api import compare as compare
    from s5mars.api import evaluate as evaluate
    from s5mars.api import train as train
    from s5mars.classes import IGNORE as IGNORE
    from s5mars.classes import Taxonomy as Taxonomy
    from s5mars.data.dataset import Dataset as Dataset
    from s5mars.data.layouts import open_dataset as open_dataset
    from s5mars.demo import demo_data as demo_data
    from s5mars.errors import UserError as UserError
    from s5mars.evaluation.confusion import Confusion as Confusion
    from s5mars.predict.predictor import Predictor as Predictor
    from s5mars.predict.predictor import load as load
    from s5mars.predict.segmentation import Segmentation as Segmentation
    from s5mars.settings.config import TrainConfig as TrainConfig
    from s5mars.types import Sample as Sample

_NAMES = {
    "s5mars.api": ("Comparison", "Run", "Scores", "compare", "evaluate", "train"),
    "s5mars.classes": ("IGNORE", "Taxonomy"),
    "s5mars.data.dataset": ("Dataset",),
    "s5mars.data.layouts": ("open_dataset",),
    "s5mars.demo": ("demo_data",),
    "s5mars.errors": ("UserError",),
    "s5mars.evaluation.confusion": ("Confusion",),
    "s5mars.predict.predictor": ("Predictor", "load"),
    "s5mars.predict.segmentation": ("Segmentation",),
    "s5mars.settings.config": ("TrainConfig",),
    "s5mars.types": ("Sample",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__version__ = "0.1.0"
__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import s5mars`` is quick."""
    if name not in _HOME:
        raise AttributeError(f"module 's5mars' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
