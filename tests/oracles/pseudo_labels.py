"""Pastes and pseudo-labels, pixel by pixel: what ClassMix and RanPaste have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oracles.s5mars import Array, softmax


@dataclass
class Images:
    """B images and what is known of their pixels; 255 is "unknown"."""

    image: Array  # (B, 3, H, W)
    probability: Array  # (B, C, H, W)
    label: NDArray[np.int64]
    valid: NDArray[np.bool_]

    def copy(self) -> Images:
        return Images(
            self.image.copy(), self.probability.copy(), self.label.copy(), self.valid.copy()
        )

    def take(self, b: int, y: int, x: int, source: Images, place: tuple[int, int, int]) -> None:
        """Put a pixel of another set of images, and everything known of it, at (b, y, x)."""
        other, row, column = place
        self.image[b, :, y, x] = source.image[other, :, row, column]
        self.probability[b, :, y, x] = source.probability[other, :, row, column]
        self.label[b, y, x] = source.label[other, row, column]
        self.valid[b, y, x] = source.valid[other, row, column]

    def answer(self, b: int, y: int, x: int) -> tuple[int, float]:
        """The class of a pixel, and how sure it is."""
        if self.label[b, y, x] != 255:
            return int(self.label[b, y, x]), 1.0
        probability = self.probability[b, :, y, x]
        return int(np.argmax(probability)), float(max(probability))


def pseudo_loss(logits: Array, seen: Images, *, above: float) -> tuple[float, float, float]:
    """Over the valid pixels: mean cross-entropy of all, that of the sure ones (the others count
    as 0), and the share of the sure ones."""
    everything, sure_ones, sure, pixels = 0.0, 0.0, 0, 0
    batch, _, height, width = logits.shape
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                if not seen.valid[b, y, x]:
                    continue
                pixels += 1
                label, confidence = seen.answer(b, y, x)
                loss = -math.log(softmax(logits[b, :, y, x])[label])
                everything += loss
                if confidence > above:
                    sure += 1
                    sure_ones += loss
    pixels = max(pixels, 1)
    return everything / pixels, sure_ones / pixels, sure / pixels
