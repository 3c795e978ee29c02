"""A timm encoder under a decoder: what the networks of ``deeplab.py``, ``dpt.py`` and
``linear.py`` share.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import timm
import torch
from torch import Tensor, nn

from s5mars.errors import UserError
from s5mars.models.encoders import build_encoder, encode
from s5mars.models.feature_cache import FeatureCache
from s5mars.models.network import SegmentationNetwork
from s5mars.models.upsample import upsample
from s5mars.models.weights import load_encoder_weights, named_weights

RELEASED_MEAN = (0.625, 0.519, 0.363)
RELEASED_DIVISOR = (0.01803789, 0.01469946, 0.00991374)
"""Divisor of the released code: the variances of table II, not the standard deviations."""


class EncoderOptions(TypedDict, total=False):
    """What every decoder hands on to ``Segmenter``, which describes it."""

    output_stride: int | None
    weights: str
    normalisation: str
    drop_path: float


class Segmenter(SegmentationNetwork, ABC):
    """Encoder, decoder and normalisation.

    A subclass implements ``fuse``, and after ``super().__init__`` builds what it needs for it, and:

    - ``decoder``: from fused features to what is classified;
    - ``classifier``: a 1×1 convolution to the classes;
    - ``representation``, if it is asked for.

    Args:
        encoder: timm name of an encoder, such as ``resnet50`` or ``vit_small_patch14_dinov2``.
        classes: number of output channels.
        output_stride: of a pyramid: 8, 16 or 32; see ``build_encoder``.
        weights: see ``s5mars.models.weights``.
        normalisation: ``encoder`` (the statistics of its pretraining) or
            ``as_released`` (the divisor of the released S5Mars code, a variance).
        drop_path: see ``build_encoder``.
    """

    NAME: ClassVar[str]
    LEVELS: ClassVar[int]  # number of feature maps that it reads
    DECODER: ClassVar[tuple[str, ...]]  # modules between encoder and classifier; the last one last

    decoder: nn.Module
    classifier: nn.Conv2d

    def __init__(
        self,
        encoder: str,
        classes: int,
        *,
        output_stride: int | None = None,
        weights: str = "none",
        normalisation: str = "encoder",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        built, self.layout = build_encoder(
            encoder, levels=self.LEVELS, output_stride=output_stride, drop_path=drop_path
        )
        self.encoder: nn.Module = built
        self.weights_report = load_encoder_weights(built, encoder, weights=weights)
        mean, std = _statistics(named_weights(weights) or encoder, normalisation)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.frozen = False
        self.cache_folder: Path | None = None
        self._cache: FeatureCache | None = None
        self.description = {
            "network": self.NAME,
            "encoder": encoder,
            "output_stride": self.layout.strides[-1] if self.layout.strided else None,
            "normalisation": normalisation,
            "classes": classes,
            "encoder_stages": self.layout.stages,
        }

    def freeze(self, *, cache: Path | None = None) -> None:
        """Stop training the encoder: no gradient, evaluation mode.

        Args:
            cache: folder for the features of uint8 images; several runs may share it.
        """
        self.frozen, self.cache_folder = True, cache
        self._cache = None  # of another folder or of earlier weights
        self.encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Segmenter:
        """Set the mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or float in [0, 1] → (B, C, H, W) float32 logits."""
        return self.decode(*self.features(image), size=(image.shape[-2], image.shape[-1]))

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of an image, fine to coarse; (B, C, h, w) each.

        With a frozen encoder and a cache, those of uint8 images are computed one image at a time
        and rounded to half precision, so that they depend neither on the batch nor on the cache.
        """
        if image.dtype == torch.uint8 and self.frozen and self.cache_folder is not None:
            found = [self._cached(single) for single in image]
            return tuple(torch.stack(maps).to(self.mean.dtype) for maps in zip(*found, strict=True))
        return self.encode(self.normalised(image))

    def encode(self, normalised: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of an image that is normalised already."""
        return encode(self.encoder, self.layout, normalised)

    @abstractmethod
    def fuse(self, *features: Tensor) -> Tensor:
        """Feature maps → the common input of both heads."""

    def classify(self, fused: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Fused features → float32 logits at ``size``."""
        return self.enlarge(self.classifier(self.decoder(fused)), size)

    def represent(self, fused: Tensor) -> Tensor:
        """Fused features → (B, D, h, w) float32 embedding on a coarser grid.

        Raises:
            UserError: if the network has no such head.
        """
        if self.representation is None:
            raise UserError("network has no representation head; build it with representation > 0")
        embedded: Tensor = self.representation(fused).float()
        return embedded

    def decode(self, *features: Tensor, size: tuple[int, int]) -> Tensor:
        """Feature maps → logits at ``size``."""
        return self.classify(self.fuse(*features), size=size)

    def enlarge(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits of the padded image → (B, C, H, W) of the image."""
        # With few classes, a softmax over planes is faster than over channels-last memory.
        logits = logits.float().contiguous()
        multiple = self.layout.multiple
        if multiple == 1:
            return upsample(logits, size, training=self.training)
        height, width = size
        whole = (height + -height % multiple, width + -width % multiple)
        return upsample(logits, whole, training=self.training)[..., :height, :width]

    def _cached(self, image: Tensor) -> list[Tensor]:
        """(3, H, W) uint8 → one (C, h, w) for each level, in half precision."""
        if self._cache is None:  # not before: a resumed run loads its weights after it is built
            assert self.cache_folder is not None
            self._cache = FeatureCache(self.cache_folder, self._digest())

        def encode() -> list[Tensor]:
            with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
                return [level[0] for level in self.encode(self.normalised(image[None]))]

        return self._cache.features(image, encode)

    def _digest(self) -> str:
        found = hashlib.sha256(repr((self.layout, self.description)).encode())
        for name, tensor in self.encoder.state_dict().items():
            found.update(name.encode())
            found.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()
                         if tensor.ndim else str(tensor.item()).encode())  # fmt: skip
        for statistics in (self.mean, self.std):
            found.update(str(statistics.flatten().tolist()).encode())
        return found.hexdigest()[:16]


def _statistics(encoder: str, normalisation: str) -> tuple[Sequence[float], Sequence[float]]:
    if normalisation == "as_released":
        return RELEASED_MEAN, RELEASED_DIVISOR
    if normalisation != "encoder":
        raise UserError(
            f"--deeplab.normalisation must be encoder or as_released (got {normalisation!r})"
        )
    config: Any = timm.get_pretrained_cfg(encoder, allow_unregistered=False)
    if config is None:
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return config.mean, config.std
