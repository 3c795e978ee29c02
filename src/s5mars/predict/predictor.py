"""Numpy image in, class map out; the same few lines for a tile and for a panorama."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from s5mars.classes import IGNORE, Taxonomy
from s5mars.data.resolution import FULL, Resolution
from s5mars.devices import find_device
from s5mars.errors import UserError
from s5mars.predict.temperature import check_temperature, tempered, tempered_largest
from s5mars.predict.tiling import Block, Grid, Network, blended, enlarged

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


@dataclass(frozen=True)
class Segmentation:
    """A class map and how sure the network was of it."""

    labels: NDArray[np.uint8]  # (H, W) class index; IGNORE where the predictor abstained
    confidence: NDArray[np.uint8]  # (H, W) largest class probability, 0..255 for 0..1
    abstained: float = 0.0  # share of the pixels without a class for want of confidence


class Predictor:
    """A model ready to be asked: windows, device, precision and doubt are settled here.

    Example:
        >>> predictor = s5mars.load("runs/a")  # doctest: +SKIP
        >>> labels = predictor.predict(image)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module | Network,
        taxonomy: Taxonomy,
        *,
        window: int = 1024,
        overlap: float = 0.25,
        batch: int = 1,
        device: str | torch.device = "cpu",
        precision: Precision = "fp32",
        temperature: float = 1.0,
        tta: bool = False,
        abstain: float | None = None,
        resolution: Resolution = FULL,
    ) -> None:
        """Move the model to its device, in evaluation mode (the module itself, not a copy).

        Args:
            model: takes (B, 3, h, w) uint8 RGB with h, w >= 32 and gives (B, C, h, w) logits; it
                normalises inside. A torch module, or anything else that can be called so.
            taxonomy: its C classes, in the order of the logits.
            window: side in pixels of the windows that larger images are cut into; an image that
                fits into one window is a single forward pass.
            overlap: least share of a window that its neighbour covers, too, in [0, 0.9].
            batch: windows in one forward pass.
            device: ``"cpu"``, ``"cuda"``, ..., or ``"auto"``: the accelerator if there is one.
            precision: ``"bf16"`` computes in bfloat16 where that is safe (autocast).
            temperature: what the logits are divided by for calibrated probabilities; no label
                depends on it (see ``s5mars.predict.temperature``).
            tta: average the probabilities of each window and of its mirror image, left to right
                (test-time augmentation); it takes twice the time.
            abstain: leave a pixel without a class (255, ``IGNORE``) where the largest calibrated
                probability is below this, in [0, 1]; None never does.
            resolution: what images are resized to before the network sees them, that of its
                training; maps and probabilities have the size of the image all the same.

        Raises:
            UserError: if a setting is out of range, or the device is not there.
        """
        Grid.over(1, 1, window=window, overlap=overlap)  # complain now, not at the first image
        if batch < 1:
            raise UserError(f"a batch of {batch} windows: the least is 1")
        if precision not in PRECISIONS:
            raise UserError(f"precision {precision!r}: choose from {', '.join(PRECISIONS)}")
        if precision != "fp32" and not isinstance(model, nn.Module):
            raise UserError(f"precision {precision}: only a torch module can change its own")
        if abstain is not None and not 0 <= abstain <= 1:
            raise UserError(f"abstain below a confidence of {abstain}: not in [0, 1]")
        self.device = find_device(device)
        if isinstance(model, nn.Module):
            # Convolutions are faster with channels last, which is how images lie in memory anyway.
            model = model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.model = model
        self.taxonomy = taxonomy
        self.window = window
        self.overlap = overlap
        self.batch = batch
        self.precision = precision
        self.temperature = check_temperature(temperature)
        self.tta = tta
        self.abstain = abstain
        self.resolution = resolution

    @property
    def doubt(self) -> str:
        """How confidence is made and used, for summaries; "" where nothing was asked for."""
        parts = [f"temperature {self.temperature:.3f}"] if self.temperature != 1 else []
        parts += ["mean over the horizontal flip"] if self.tta else []
        parts += [f"no class below confidence {self.abstain:g}"] if self.abstain is not None else []
        return ", ".join(parts)

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
            labels, (H, W) uint8 class indices, ``IGNORE`` where the predictor abstains; with
            ``probabilities`` a pair of them and (C, H, W) float32, calibrated, that sum to 1 over
            the classes.

        Raises:
            UserError: if the array is no such image.
        """
        image = checked(image)
        labels = np.empty(image.shape[:2], np.uint8)
        full = (
            np.empty((len(self.taxonomy), *image.shape[:2]), np.float32) if probabilities else None
        )
        for rows, columns, block in self.blocks(image, temperature=1.0):
            classes = block.argmax(0).to(torch.uint8) if self.abstain is None else None
            decided = self._decide(block)[0] if classes is None else classes
            labels[rows, columns] = decided.cpu().numpy()
            if full is not None:
                full[:, rows, columns] = tempered(block, self.temperature).cpu().numpy()
        return labels if full is None else (labels, full)

    def segment(self, image: NDArray[np.uint8]) -> Segmentation:
        """Class map and confidence, in memory that does not grow with the number of classes.

        Args:
            image: (H, W, 3) uint8 RGB, or (H, W) uint8 grey, of any size.

        Raises:
            UserError: if the array is no such image.
        """
        image = checked(image)
        labels = np.empty(image.shape[:2], np.uint8)
        confidence = np.empty(image.shape[:2], np.uint8)
        for rows, columns, block in self.blocks(image, temperature=1.0):
            classes, sure = self._decide(block)
            labels[rows, columns] = classes.cpu().numpy()
            confidence[rows, columns] = sure.mul_(255).round_().clamp_(0, 255).to(torch.uint8).cpu()
        abstained = 0.0 if self.abstain is None else float((labels == IGNORE).mean())
        return Segmentation(labels, confidence, abstained)

    def blocks(
        self, image: NDArray[np.uint8], *, temperature: float | None = None
    ) -> Iterator[Block]:
        """Probabilities line by line, for those who reduce them as they come.

        Args:
            image: (H, W, 3) uint8 RGB, or (H, W) uint8 grey, of any size.
            temperature: None takes the predictor's; 1 gives what the network itself says.

        Yields:
            ``(rows, columns, probabilities)``: two slices of the image, and (C, rows, columns)
            float32 on the device, valid until the next one is asked for; together the blocks cover
            every pixel once.

        Raises:
            UserError: if the array is no such image.
        """
        at = self.temperature if temperature is None else check_temperature(temperature)
        image = checked(image)
        raw = blended(
            self.probabilities,
            self.resolution.resized(image),
            window=self.window,
            overlap=self.overlap,
            batch=self.batch,
        )
        height, width = image.shape[:2]
        if self.resolution.size(width, height) != (width, height):
            raw = enlarged(raw, classes=len(self.taxonomy), size=(height, width))
        return ((rows, columns, tempered(block, at)) for rows, columns, block in raw)

    def _decide(self, block: Tensor) -> tuple[Tensor, Tensor]:
        """(C, ...) uncalibrated → class or IGNORE, uint8, and calibrated confidence, float32."""
        largest, index = block.max(0)
        sure = tempered_largest(block, largest, self.temperature)
        classes = index.to(torch.uint8)
        if self.abstain is not None:
            classes[sure < self.abstain] = IGNORE
        return classes, sure

    @torch.inference_mode()
    def probabilities(self, windows: Tensor) -> Tensor:
        """The tensor core: (B, 3, h, w) uint8, h, w >= 32 → (B, C, h, w) float32 on the device.

        They are those of the network, at temperature 1; with ``tta`` the mean over the flip.

        Raises:
            UserError: if the model does not give one score for each class and pixel.
        """
        windows = windows.to(self.device, non_blocking=True)
        probability = self._forward(windows)
        if self.tta:
            mirrored = self._forward(windows.flip(-1)).flip(-1)
            probability = (probability + mirrored).mul_(0.5)
        return probability

    def _forward(self, windows: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits: Tensor = self.model(windows)
        expected = (len(windows), len(self.taxonomy), *windows.shape[2:])
        if logits.shape != expected:
            raise UserError(
                f"the model gives scores of shape {tuple(logits.shape)}, not {expected}: "
                f"does it belong to the {len(self.taxonomy)} classes of {self.taxonomy.name!r}?"
            )
        return logits.float().softmax(1)


def load(
    path: str | PathLike[str],
    *,
    network: str = "teacher",
    window: int = 1024,
    overlap: float = 0.25,
    batch: int = 1,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    temperature: float | None = None,
    tta: bool = False,
    abstain: float | None = None,
) -> Predictor:
    """Open a trained model.

    Args:
        path: a run folder; a checkpoint (``.safetensors`` with its JSON beside it); an ONNX file of
            ``s5mars export``; or ``"hf:OWNER/NAME"``, a model on the hub.
        network: ``"teacher"`` (the moving average, which is what is evaluated) or ``"student"``.
        window: see ``Predictor``, as for all that follow.
        overlap: share of a window that its neighbour covers, too.
        batch: windows in one forward pass.
        device: where to compute; ``"auto"`` takes the accelerator if there is one.
        precision: ``"fp32"`` or ``"bf16"``.
        temperature: None takes the one that ``s5mars calibrate`` found, and 1 where it never ran.
        tta: average over the horizontal flip.
        abstain: least confidence of a pixel that gets a class.

    Raises:
        MissingFileError: if there is no checkpoint, or the hub cannot be reached.
        UserError: if the checkpoint is damaged, or a setting is out of range.
    """
    from s5mars.models.opened import open_model

    loaded = open_model(path, network=network)
    return Predictor(
        loaded.model,
        loaded.taxonomy,
        window=window,
        overlap=overlap,
        batch=batch,
        device=device,
        precision=precision,
        temperature=loaded.temperature if temperature is None else temperature,
        tta=tta,
        abstain=abstain,
        resolution=loaded.resolution,
    )


def checked(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, contiguous; grey (H, W) is repeated.

    Raises:
        UserError: naming the dtype or shape that was given.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise UserError(
            f"an image of dtype {image.dtype}: uint8 in 0..255 is needed "
            "(scale other ranges first; s5mars.data.read.read_image does so for files)"
        )
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UserError(
            f"an image of shape {image.shape}: (height, width, 3) or (height, width) is needed"
        )
    return np.ascontiguousarray(image)
