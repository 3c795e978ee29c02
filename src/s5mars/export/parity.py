"""Compare an exported file with the network: results and speed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from s5mars.errors import UserError, first_line
from s5mars.models.onnx_network import INPUT, OUTPUT, open_session
from s5mars.text.numbers import plural

Probabilities = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""(H, W, 3) uint8 → (C, H, W) float32 probabilities."""


@dataclass(frozen=True)
class Parity:
    """Agreement of two networks on the same images."""

    images: int
    pixels: int
    equal: float  # fraction of pixels with the same class
    worst: float  # largest absolute difference of a probability
    mean: float  # mean absolute difference of a probability

    def __str__(self) -> str:
        return (
            f"{100 * self.equal:.4f} % of {self.pixels:,} pixels of "
            f"{plural(self.images, 'image')} have the same class; probabilities differ by at most "
            f"{self.worst:.2g}, on average {self.mean:.2g}"
        )


def parity(one: Probabilities, other: Probabilities, images: Sequence[NDArray[np.uint8]]) -> Parity:
    """Compare two networks.

    Args:
        images: (H, W, 3) uint8 RGB, H and W at least 32.

    Raises:
        UserError: if there is no image.
    """
    if not images:
        raise UserError("images must not be empty")
    pixels = equal = 0
    worst = total = 0.0
    for image in images:
        a, b = one(image), other(image)
        difference = np.abs(a - b)
        pixels += a[0].size
        equal += int((a.argmax(0) == b.argmax(0)).sum())
        worst = max(worst, float(difference.max()))
        total += float(difference.mean()) * a[0].size
    return Parity(len(images), pixels, equal / pixels, worst, total / pixels)


def deviation(one: Probabilities, other: Probabilities, image: NDArray[np.uint8]) -> float:
    """Return the difference of the logits of two networks, relative to their variation.

    Unlike a difference of probabilities, it does not depend on the temperature or on how much the
    network was trained. About 1e-5 is usual for float32, and 1 for unrelated networks.
    """
    a, b = (_logits(probabilities(image)) for probabilities in (one, other))
    varying = a - a.mean((1, 2), keepdims=True)
    # The second term is for networks whose values do not depend on the image.
    scale = _root_mean_square(varying) + 1e-3 * (1 + _root_mean_square(a))
    return _root_mean_square(a - b) / scale


def _logits(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """The logits up to the temperature, with mean zero over the classes."""
    found = np.log(np.maximum(probabilities.astype(np.float64), 1e-30))
    return found - found.mean(0)  # type: ignore[no-any-return]


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(values).mean()))


def torch_probabilities(
    model: nn.Module, *, temperature: float = 1.0, class_biases: Sequence[float] | None = None
) -> Probabilities:
    """A torch network that returns logits, on the CPU, in the fastest memory format."""
    fast = model.cpu().to(memory_format=torch.channels_last).eval()
    biases = torch.tensor(0.0 if class_biases is None else class_biases).view(1, -1, 1, 1)

    @torch.inference_mode()
    def predict(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits = fast(torch.from_numpy(image[None]).permute(0, 3, 1, 2)) + biases
        found: NDArray[np.float32] = (logits / temperature).softmax(1)[0].numpy()
        return found

    return predict


def onnx_probabilities(path: Path) -> Probabilities:
    """An ONNX file of ``write_onnx`` or ``quantise``.

    Raises:
        UserError: if onnxruntime is missing or cannot read the file; of the returned function, if
            onnxruntime fails on an image.
    """
    session = open_session(path)

    def predict(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            found: NDArray[np.float32] = session.run([OUTPUT], {INPUT: image[None]})[0][0]
        except Exception as error:  # those of onnxruntime have no other common base class
            size = f"{image.shape[0]} × {image.shape[1]}"
            raise UserError(
                f"{path}: onnxruntime fails on an image of {size} pixels ({first_line(error)})"
            ) from error
        return found

    return predict


def seconds_per_megapixel(
    networks: Sequence[Probabilities],
    image: NDArray[np.uint8],
    *,
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Median time of each network; they take turns, so that a busy moment affects all.

    Args:
        image: (H, W, 3) uint8 RGB.
        clock: returns seconds; use ``time.process_time`` for one thread on a busy machine.
    """
    times: list[list[float]] = [[] for _ in networks]
    for predict in networks:
        predict(image)
    for _ in range(rounds):
        for predict, spent in zip(networks, times, strict=True):
            start = clock()
            predict(image)
            spent.append(clock() - start)
    megapixels = image.shape[0] * image.shape[1] / 1e6
    return [statistics.median(spent) / megapixels for spent in times]
