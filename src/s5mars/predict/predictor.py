"""Predict a class map for a numpy image of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from s5mars.classes import IGNORE, Taxonomy
from s5mars.data.resolution import FULL, Resolution
from s5mars.devices import find_device
from s5mars.errors import UserError, require_choice
from s5mars.models.domain import Domain
from s5mars.models.encoders import padded
from s5mars.models.segmenter import Segmenter
from s5mars.predict.inference import DEFAULT, Inference
from s5mars.predict.reading import Picture, checked, open_picture
from s5mars.predict.segmentation import Segmentation
from s5mars.predict.temperature import check_temperature, tempered, tempered_largest
from s5mars.predict.tiling import ProbabilityBlock, blended, enlarged
from s5mars.products.no_data import LEVEL

if TYPE_CHECKING:
    from s5mars.models.checkpoint import LoadedModel


class Predictor:
    """A model on its device that predicts images of any size.

    Example:
        >>> predictor = s5mars.load("runs/a")  # doctest: +SKIP
        >>> labels = predictor.predict(image)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        taxonomy: Taxonomy,
        *,
        inference: Inference = DEFAULT,
        temperature: float = 1.0,
        class_biases: Sequence[float] | None = None,
        resolution: Resolution = FULL,
        domain: Domain | None = None,
        name: str = "",
        **settings: Any,
    ) -> None:
        """Move the model (the module itself, not a copy) to its device and set evaluation mode.

        ``Predictor.of`` takes temperature, class biases and resolution from a loaded model.

        Args:
            model: takes (B, 3, h, w) uint8 RGB with h, w >= 32 and returns (B, C, h, w) logits; it
                normalises inside. A torch module or any other callable.
            taxonomy: the C classes, in the order of the logits.
            temperature: divisor of the logits for calibrated probabilities; no label depends on it
                (see ``s5mars.predict.temperature``).
            class_biases: a number for each class that is added to its logits, before they are
                divided by the temperature (see ``s5mars.evaluation.class_biases``); None adds
                nothing.
            resolution: the resolution of training, to which images are resized before the network
                sees them; maps and probabilities still have the size of the image.
            domain: record of the training images; ``segment`` compares images with it.
            name: path or name of the model, for messages.
            **settings: fields of ``Inference`` that override ``inference``, such as ``window=512``.

        Raises:
            UserError: if a setting is out of range or the device does not exist.
            TypeError: if ``settings`` contains an unknown field.
        """
        self.inference = replace(inference, **settings)
        if self.inference.precision != "fp32" and not isinstance(model, nn.Module):
            raise UserError(
                f"precision {self.inference.precision} needs a torch module; use fp32 instead"
            )
        self.device = find_device(self.inference.device)
        if isinstance(model, nn.Module):
            # Convolutions are faster with channels last, which is how images lie in memory anyway.
            model = model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.model = model
        self.taxonomy = taxonomy
        self.temperature = check_temperature(temperature)
        self.class_biases = self._biases(class_biases)
        self.resolution = resolution
        self.domain = domain
        self.name = name

    def __repr__(self) -> str:
        facts = getattr(self.model, "description", {})
        network = ", ".join(str(facts[key]) for key in ("network", "encoder") if key in facts)
        parts = (
            self.name,
            network or type(self.model).__name__,
            f"{len(self.taxonomy)} classes ({', '.join(self.taxonomy.names)})",
            f"resolution {self.resolution}",
            str(self.device),
            self.confidence_note,
        )
        return f"Predictor({'; '.join(filter(None, parts))})"

    @classmethod
    def of(
        cls, loaded: LoadedModel[Any], inference: Inference = DEFAULT, *, name: str = ""
    ) -> Predictor:
        """A predictor of a loaded model, with its own temperature, resolution and domain."""
        return cls(
            loaded.model,
            loaded.taxonomy,
            inference=inference,
            temperature=loaded.temperature,
            class_biases=loaded.class_biases,
            resolution=loaded.resolution,
            domain=loaded.domain,
            name=name,
        )

    @property
    def confidence_note(self) -> str:
        """How confidence is computed and used, for summaries; "" if all settings are defaults."""
        abstain = self.inference.abstain
        parts = [f"temperature {self.temperature:.3f}"] if self.temperature != 1 else []
        parts += ["with class biases"] if self.class_biases is not None else []
        parts += ["averaged over the horizontal flip"] if self.inference.tta else []
        parts += [f"no class below confidence {abstain:g}"] if abstain is not None else []
        return ", ".join(parts)

    @overload
    def predict(
        self, image: Picture, *, probabilities: Literal[False] = False
    ) -> NDArray[np.uint8]: ...

    @overload
    def predict(
        self, image: Picture, *, probabilities: Literal[True]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]: ...

    def predict(
        self, image: Picture, *, probabilities: bool = False
    ) -> NDArray[np.uint8] | tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The most probable class of every pixel.

        Args:
            image: (H, W, 3) uint8 RGB or (H, W) uint8 grey, of any size; a Pillow image; or the
                path of an image or product, whose pixels without data get ``IGNORE``.
            probabilities: also return the probability of every class, which takes 4·C·H·W bytes.

        Returns:
            Labels, (H, W) uint8 class indices, ``IGNORE`` where the predictor abstains. With
            ``probabilities``, labels and (C, H, W) float32 calibrated probabilities, which sum to
            1 over the classes.

        Raises:
            UserError: if the image cannot be read, or its dtype or shape is wrong.
        """
        image, empty, _ = open_picture(image)
        labels = np.empty(image.shape[:2], np.uint8)
        full = (
            np.empty((len(self.taxonomy), *image.shape[:2]), np.float32) if probabilities else None
        )
        for rows, columns, block in self.blocks(image, temperature=1.0):
            abstains = self.inference.abstain is not None
            classes = self._decide(block)[0] if abstains else block.argmax(0).to(torch.uint8)
            labels[rows, columns] = classes.cpu().numpy()
            if full is not None:
                full[:, rows, columns] = tempered(block, self.temperature).cpu().numpy()
        if empty is not None:
            labels[empty] = IGNORE
        return labels if full is None else (labels, full)

    def segment(self, image: Picture) -> Segmentation:
        """Predict class map and confidence, in memory independent of the number of classes.

        If the model knows its domain, compare the image with it (see ``models.domain``).

        Args:
            image: see ``predict``.

        Raises:
            UserError: if the image cannot be read, or its dtype or shape is wrong.
        """
        image, empty, info = open_picture(image)
        labels = np.empty(image.shape[:2], np.uint8)
        confidence = np.empty(image.shape[:2], np.uint8)
        seen: list[Tensor] | None = None
        if self.domain is not None and self.domain.features is not None:
            seen = []
        for rows, columns, block in self._blocks(image, 1.0, seen=seen):
            classes, sure = self._decide(block)
            labels[rows, columns] = classes.cpu().numpy()
            confidence[rows, columns] = sure.mul_(255).round_().clamp_(0, 255).to(torch.uint8).cpu()
        verdict = None
        if self.domain is not None:
            features = _mean(seen) if seen else None
            verdict = self.domain.judge(image, features, resolution=self.resolution)
            verdict = self.domain.with_camera(verdict, info)
        if empty is not None:
            labels[empty], confidence[empty] = IGNORE, 0
        return Segmentation(labels, confidence, image, self.taxonomy, verdict)

    def features(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The encoder's features at stride 4, averaged over the pixels of an image with data.

        Args:
            image: (H, W, 3) uint8 RGB, or (H, W) uint8 grey, of any size.

        Returns:
            (C,) float32.

        Raises:
            UserError: if dtype or shape is wrong, or the network does not give its features.
        """
        if not self.gives_features:
            raise UserError(f"{type(self.model).__name__} does not give its features")
        seen: list[Tensor] = []
        for _ in self._blocks(checked(image), 1.0, seen=seen):
            pass
        return _mean(seen)

    @property
    def gives_features(self) -> bool:
        """Whether the network returns its features; torch networks over timm encoders do."""
        return isinstance(self.model, Segmenter)

    def blocks(
        self, image: NDArray[np.uint8], *, temperature: float | None = None
    ) -> Iterator[ProbabilityBlock]:
        """Yield probabilities block by block, to be reduced without holding them all.

        Args:
            image: (H, W, 3) uint8 RGB, or (H, W) uint8 grey, of any size.
            temperature: None uses the predictor's; 1 gives the uncalibrated probabilities.

        Yields:
            ``(rows, columns, probabilities)``: two slices of the image, and (C, rows, columns)
            float32 on the device, valid until the next block is requested; together the blocks
            cover every pixel once.

        Raises:
            UserError: if dtype or shape is wrong.
        """
        at = self.temperature if temperature is None else check_temperature(temperature)
        return self._blocks(checked(image), at)

    def _blocks(
        self, image: NDArray[np.uint8], at: float, *, seen: list[Tensor] | None = None
    ) -> Iterator[ProbabilityBlock]:
        """``blocks`` at a temperature; ``seen`` collects the features of all windows."""
        raw = blended(
            self.probabilities if seen is None else partial(self.probabilities, seen=seen),
            self.resolution.resized(image),
            window=self.inference.window,
            overlap=self.inference.overlap,
            batch=self.inference.batch,
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
        if self.inference.abstain is not None:
            classes[sure < self.inference.abstain] = IGNORE
        return classes, sure

    @torch.inference_mode()
    def probabilities(self, windows: Tensor, *, seen: list[Tensor] | None = None) -> Tensor:
        """Class probabilities of a batch of windows, at temperature 1, with class biases.

        Args:
            windows: (B, 3, h, w) uint8, h, w >= 32.
            seen: ``_sums`` of the encoder's features at stride 4 is appended to it.

        Returns:
            (B, C, h, w) float32 on the device; with ``tta`` the mean over the horizontal flip.

        Raises:
            UserError: if the model does not return one score per class and pixel.
        """
        windows = windows.to(self.device, non_blocking=True)
        probability = self._forward(windows, seen)
        if self.inference.tta:
            mirrored = self._forward(windows.flip(-1)).flip(-1)
            probability = (probability + mirrored).mul_(0.5)
        return probability

    def _forward(self, windows: Tensor, seen: list[Tensor] | None = None) -> Tensor:
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.inference.precision == "bf16"
        ):
            if seen is None:
                logits: Tensor = self.model(windows)
            else:
                network = cast(Segmenter, self.model)
                features = network.features(windows)
                size = (windows.shape[2], windows.shape[3])
                logits = network.decode(*features, size=size)
                seen.append(_sums(features[0].float(), padded(windows, network.layout.multiple)))
        expected = (len(windows), len(self.taxonomy), *windows.shape[2:])
        if logits.shape != expected:
            raise UserError(
                f"the model returns scores of shape {tuple(logits.shape)}, expected {expected}; "
                f"check that it was trained on the {len(self.taxonomy)} classes of "
                f"{self.taxonomy.name!r}"
            )
        logits = logits.float()
        return (logits if self.class_biases is None else logits + self.class_biases).softmax(1)

    def _biases(self, biases: Sequence[float] | None) -> Tensor | None:
        """(1, C, 1, 1) float32 on the device."""
        if biases is None:
            return None
        if len(biases) != len(self.taxonomy):
            raise UserError(
                f"class_biases must have one value for each of {', '.join(self.taxonomy.names)} "
                f"(got {len(biases)})"
            )
        return torch.tensor(biases, dtype=torch.float32, device=self.device).view(1, -1, 1, 1)


def _sums(features: Tensor, windows: Tensor) -> Tensor:
    """(B, C + 1): sum of the features over places with data, and their number.

    Black borders are left out, because they would be most of what some frames show. So are deep
    shadows; they are left out of the training images, too.
    """
    data = (windows.amax(1, keepdim=True) > LEVEL).float()
    weight = F.interpolate(data, features.shape[-2:], mode="bilinear") + 1e-6
    return torch.cat([(features * weight).sum((2, 3)), weight.sum((2, 3))], dim=1)


def _mean(sums: list[Tensor]) -> NDArray[np.float32]:
    total = torch.cat(sums).cpu().double().sum(0)
    mean: NDArray[np.float32] = (total[:-1] / total[-1]).float().numpy()
    return mean


def load(
    path: str | PathLike[str],
    *,
    network: str = "teacher",
    temperature: float | None = None,
    class_biases: bool = True,
    inference: Inference = DEFAULT,
    **settings: Any,
) -> Predictor:
    """Open a trained model.

    Args:
        path: name of an installed model, such as ``"navcam"`` (``s5mars models`` lists them); a run
            folder; a checkpoint (``.safetensors`` with its JSON file next to it); an ONNX
            file of ``s5mars export``; or ``"hf:OWNER/NAME"``, a model on the hub.
        network: ``"teacher"`` (the moving average, which is the network that is evaluated) or
            ``"student"``.
        temperature: None uses the temperature that ``s5mars calibrate`` fitted, or 1 if the model
            is not calibrated.
        class_biases: whether the class biases of the model are used, if it has any.
        inference: settings of inference.
        **settings: fields of ``Inference``, such as ``device="auto"``; they override ``inference``.

    Raises:
        MissingFileError: if there is no checkpoint, or the hub cannot be reached.
        UserError: if the checkpoint is damaged, a setting is unknown or out of range, or an ONNX
            file contains class biases that are not wanted.
    """
    from s5mars.models.checkpoint import without_class_biases
    from s5mars.models.opened import open_model

    known = tuple(Inference.__dataclass_fields__)
    for name in settings:
        require_choice(name, known, name="a setting of load", suggest=True)
    inference = replace(inference, **settings)  # fail before the weights are read
    loaded = open_model(path, network=network)
    if not class_biases:
        loaded = without_class_biases(loaded, path)
    predictor = Predictor.of(loaded, inference, name=fspath(path))
    if temperature is not None:
        predictor.temperature = check_temperature(temperature)
    return predictor
