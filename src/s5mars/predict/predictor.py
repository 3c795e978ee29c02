"""Numpy image in, class map out; the same few lines for a tile and for a panorama."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from s5mars.classes import Taxonomy
from s5mars.devices import find_device
from s5mars.predict.tiling import Grid, blended

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


@dataclass(frozen=True)
class Segmentation:
    """A class map and how sure the network was of it."""

    labels: NDArray[np.uint8]  # (H, W) class index
    confidence: NDArray[np.uint8]  # (H, W) largest class probability, 0..255 for 0..1


class Predictor:
    """A model ready to be asked: windows, device and precision are settled here.

    Example:
        >>> predictor = s5mars.load("runs/a")  # doctest: +SKIP
        >>> labels = predictor.predict(image)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module,
        taxonomy: Taxonomy,
        *,
        window: int = 1024,
        overlap: float = 0.25,
        batch: int = 1,
        device: str | torch.device = "cpu",
        precision: Precision = "fp32",
    ) -> None:
        """Move the model to its device, in evaluation mode (the module itself, not a copy).

        Args:
            model: ``forward`` takes (B, 3, h, w) uint8 RGB with h, w >= 32 and gives (B, C, h, w)
                logits; it normalises inside.
            taxonomy: its C classes, in the order of the logits.
            window: side in pixels of the windows that larger images are cut into; an image that
                fits into one window is a single forward pass.
            overlap: least share of a window that its neighbour covers, too, in [0, 0.9].
            batch: windows in one forward pass.
            device: ``"cpu"``, ``"cuda"``, ..., or ``"auto"``: the accelerator if there is one.
            precision: ``"bf16"`` computes in bfloat16 where that is safe (autocast).

        Raises:
            ValueError: if a setting is out of range, or the device is not there.
        """
        Grid.over(1, 1, window=window, overlap=overlap)  # complain now, not at the first image
        if batch < 1:
            raise ValueError(f"a batch of {batch} windows: the least is 1")
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r}: choose from {', '.join(PRECISIONS)}")
        self.device = find_device(device)
        # Convolutions are faster with channels last, which is how images lie in memory anyway.
        self.model = model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.taxonomy = taxonomy
        self.window = window
        self.overlap = overlap
        self.batch = batch
        self.precision = precision

    @overload
    def predict(
        self, image: NDArray[np.uint8], *, probabilities: Literal[False] = False
    ) -> NDArray[np.uint8]: ...

    @overload
    def predict(
        self, image: NDArray[np.uint8], *, probabilities: Literal[True]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]: ...

    def predict(
        self, image: NDArray[np.uint8], *, probabilities: bool = False
    ) -> NDArray[np.uint8] | tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The most probable class of every pixel.

        Args:
            image: (H, W, 3) uint8 RGB, or (H, W) uint8 grey, of any size.
            probabilities: also return the probability of every class. They need 4·C·H·W bytes.

        Returns:
            labels, (H, W) uint8 class indices; with ``probabilities`` a pair of them and
            (C, H, W) float32 that sum to 1 over the classes.

        Raises:
            ValueError: if the array is no such image.
        """
        image = checked(image)
        labels = np.empty(image.shape[:2], np.uint8)
        full = (
            np.empty((len(self.taxonomy), *image.shape[:2]), np.float32) if probabilities else None
        )
        for top, band in self.bands(image):
            rows = slice(top, top + band.shape[1])
            labels[rows] = band.argmax(0).to(torch.uint8).cpu().numpy()
            if full is not None:
                full[:, rows] = band.cpu().numpy()
        return labels if full is None else (labels, full)

    def segment(self, image: NDArray[np.uint8]) -> Segmentation:
        """Class map and confidence, in memory that does not grow with the number of classes.

        Args:
            image: (H, W, 3) uint8 RGB, or (H, W) uint8 grey, of any size.

        Raises:
            ValueError: if the array is no such image.
        """
        image = checked(image)
        labels = np.empty(image.shape[:2], np.uint8)
        confidence = np.empty(image.shape[:2], np.uint8)
        for top, band in self.bands(image):
            rows = slice(top, top + band.shape[1])
            largest, index = band.max(0)
            labels[rows] = index.to(torch.uint8).cpu().numpy()
            confidence[rows] = largest.mul_(255).round_().clamp_(0, 255).to(torch.uint8).cpu()
        return Segmentation(labels, confidence)

    def bands(self, image: NDArray[np.uint8]) -> Iterator[tuple[int, Tensor]]:
        """Probabilities from top to bottom, for those who reduce them as they come.

        Args:
            image: (H, W, 3) uint8 RGB, or (H, W) uint8 grey, of any size.

        Yields:
            ``(top, probabilities)``, (C, rows, W) float32 on the device, valid until the next one
            is asked for; together the bands cover every row once.

        Raises:
            ValueError: if the array is no such image.
        """
        return blended(
            self.probabilities,
            checked(image),
            window=self.window,
            overlap=self.overlap,
            batch=self.batch,
        )

    @torch.inference_mode()
    def probabilities(self, windows: Tensor) -> Tensor:
        """The tensor core: (B, 3, h, w) uint8, h, w >= 32 → (B, C, h, w) float32 on the device.

        Raises:
            ValueError: if the model does not give one score for each class and pixel.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits: Tensor = self.model(windows.to(self.device, non_blocking=True))
        expected = (len(windows), len(self.taxonomy), *windows.shape[2:])
        if logits.shape != expected:
            raise ValueError(
                f"the model gives scores of shape {tuple(logits.shape)}, not {expected}: "
                f"does it belong to the {len(self.taxonomy)} classes of {self.taxonomy.name!r}?"
            )
        return logits.float().softmax(1)


def load(
    path: str | Path,
    *,
    network: str = "teacher",
    window: int = 1024,
    overlap: float = 0.25,
    batch: int = 1,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
) -> Predictor:
    """Open a trained model.

    Args:
        path: a run folder, or a checkpoint (``.safetensors`` with its JSON beside it).
        network: ``"teacher"`` (the moving average, which is what is evaluated) or ``"student"``.
        window: see ``Predictor``, as for all that follow.
        overlap: share of a window that its neighbour covers, too.
        batch: windows in one forward pass.
        device: where to compute; ``"auto"`` takes the accelerator if there is one.
        precision: ``"fp32"`` or ``"bf16"``.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if the checkpoint is damaged, or a setting is out of range.
    """
    from s5mars.models.checkpoint import load_model

    loaded = load_model(Path(path), network=network)
    return Predictor(
        loaded.model,
        loaded.taxonomy,
        window=window,
        overlap=overlap,
        batch=batch,
        device=device,
        precision=precision,
    )


def checked(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, contiguous; grey (H, W) is repeated.

    Raises:
        ValueError: naming the dtype or shape that was given.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise ValueError(
            f"an image of dtype {image.dtype}: uint8 in 0..255 is needed "
            "(scale other ranges first; s5mars.data.read.read_image does so for files)"
        )
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            f"an image of shape {image.shape}: (height, width, 3) or (height, width) is needed"
        )
    return np.ascontiguousarray(image)
