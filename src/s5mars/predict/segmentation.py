"""The result of a prediction: class map and confidence, and how they look."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s5mars.classes import IGNORE, Taxonomy
from s5mars.files import encoded_picture
from s5mars.models.domain import Verdict
from s5mars.predict.overlay import OPACITY, overlay
from s5mars.predict.regions import class_counts

LARGEST_SHOWN = 1024
"""Longer side in pixels of a picture that is shown: a panorama would fill a notebook."""


@dataclass(frozen=True, repr=False, eq=False)
class Segmentation:
    """A class map and its confidence.

    In a notebook it shows itself: the last line of a cell draws the overlay.
    """

    labels: NDArray[np.uint8]  # (H, W) class index; IGNORE where the predictor abstained
    confidence: NDArray[np.uint8]  # (H, W) largest class probability, 0..255 for 0..1
    image: NDArray[np.uint8]  # (H, W, 3) RGB, what was predicted
    taxonomy: Taxonomy
    verdict: Verdict | None = None  # like the training images? None if the model has no record

    @property
    def shares(self) -> dict[str, float]:
        """Share of each class among the pixels with a class; all 0 if there are none."""
        counts = class_counts(self.labels)[: len(self.taxonomy)]
        total = max(1, int(counts.sum()))
        return {
            name: int(count) / total
            for name, count in zip(self.taxonomy.names, counts, strict=True)
        }

    @property
    def badge(self) -> str:
        """The warning that the image is unlike the training images; "" if it is not."""
        if self.verdict is None or not self.verdict.outside:
            return ""
        return f"out of domain: {', '.join(self.verdict.reasons)}"

    def overlay(self, *, opacity: float = OPACITY, legend: bool = True) -> Image.Image:
        """The classes in colour over the image, at its size, with a legend below.

        Args:
            opacity: weight of the class colour, in [0, 1].
            legend: add a strip below with colour, name and pixel fraction of each class.

        Raises:
            UserError: if ``opacity`` is out of range.
        """
        return overlay(
            self.image,
            self.labels,
            self.taxonomy,
            opacity=opacity,
            legend=legend,
            badge=self.badge,
        )

    def show(self, *, opacity: float = OPACITY, legend: bool = True) -> None:
        """Show the overlay in the notebook, or in the image viewer of the desktop.

        Args:
            opacity: see ``overlay``.
            legend: see ``overlay``.
        """
        picture = self._shown(opacity=opacity, legend=legend)
        if (display := _notebook_display()) is not None:
            display(picture)
        else:
            picture.show()

    def _shown(self, *, opacity: float = OPACITY, legend: bool = True) -> Image.Image:
        picture = self.overlay(opacity=opacity, legend=legend)
        picture.thumbnail((LARGEST_SHOWN, LARGEST_SHOWN))
        return picture

    def _repr_png_(self) -> bytes:
        return encoded_picture(self._shown(), ".png")

    def __repr__(self) -> str:
        height, width = self.labels.shape
        shares = ", ".join(
            f"{name} {100 * s:.0f} %" for name, s in self.shares.items() if s > 0.005
        )
        seen = self.labels != IGNORE
        sure = f"{self.confidence[seen].mean() / 255:.2f}" if seen.any() else "–"
        parts = (f"{width} × {height}", shares, f"mean confidence {sure}", self.badge)
        return f"Segmentation({'; '.join(filter(None, parts))})"


def _notebook_display() -> Callable[[object], object] | None:
    """The function that shows an object in a notebook; None outside of one."""
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if not hasattr(shell, "kernel"):  # a terminal cannot show pictures
        return None
    display: Callable[[object], object] = ipython.display.display
    return display
