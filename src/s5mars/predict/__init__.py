"""From a numpy image to a class map; from folders of images to maps, overlays and a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s5mars.predict.predictor import Predictor as Predictor
    from s5mars.predict.predictor import Segmentation as Segmentation
    from s5mars.predict.predictor import load as load

__all__ = ["Predictor", "Segmentation", "load"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: processes that only read do without torch."""
    if name not in __all__:
        raise AttributeError(f"module 's5mars.predict' has no attribute {name!r}")
    from s5mars.predict import predictor

    return getattr(predictor, name)
