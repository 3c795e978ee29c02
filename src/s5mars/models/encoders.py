"""Any timm encoder behind one interface: feature maps of an image, fine to coarse.

There are two kinds. A *pyramid* (ResNet, EfficientNet, ConvNeXt, Swin) has maps at strides 4, 8,
16 and 32. A *columnar* encoder (every plain ViT: DINOv2, DINOv3, MAE, SigLIP) keeps one stride,
that of its patches, and its levels are the outputs of four evenly spaced blocks, each after the
final normalisation, as DINOv2, Depth Anything and UniMatch V2 take them. Class and register tokens
are left out.

Encoders that read whole patches get images whose sides are multiples of the patch: others are
padded below and to the right with the mean colour. Position embeddings are interpolated to the
size of the image (timm's ``dynamic_img_size``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from s5mars.errors import UserError, first_line, nearest_first

_ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True}, {"strict_img_size": False},
)  # fmt: skip
"""Arguments that allow any input size in an encoder; the first supported one is used."""

_REFUSALS = (ValueError, RuntimeError, TypeError, NotImplementedError, AssertionError)
_BLOCKS = {24: (4, 11, 17, 23)}
"""Depth → blocks of the four levels where they are not evenly spaced: DINOv2's ViT-L."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What an encoder returns for an image."""

    channels: tuple[int, ...]  # of each level
    strides: tuple[int, ...]
    columnar: bool = False  # all levels have one stride, as in a ViT
    strided: bool = False  # whether ``output_stride`` chose the last one
    multiple: int = 1  # sides of the images that it reads are multiples of this
    channels_last: bool = False  # its maps are (B, h, w, C), as in Swin
    stages: int = 0  # number of maps that it could return


def build_encoder(
    name: str, *, levels: int, output_stride: int | None = None, drop_path: float = 0.0
) -> tuple[Any, Layout]:
    """Build a timm encoder with random weights.

    Args:
        name: timm's name, with or without the tag of pretrained weights.
        levels: 4, 2 (the finest and the last) or 1 (the last).
        output_stride: stride of the last level of a pyramid: 8, 16 (None) or 32. Some encoders
            keep theirs (Swin 32, columnar ones the side of their patches): then another value is
            refused, except for 16, the default of a run.
        drop_path: probability of skipping the last block of the encoder in training (stochastic
            depth); earlier blocks are skipped less often.

    Raises:
        UserError: if timm has no such encoder, or it cannot return such features for images of any
            size.
    """
    output_stride = 16 if output_stride is None else output_stride
    if output_stride not in (8, 16, 32):
        raise UserError(f"--deeplab.output-stride must be 8, 16 or 32 (got {output_stride})")
    extra = {"drop_path_rate": drop_path} if drop_path else {}
    base, fixed, plain, size = _probe(name)
    reductions = list(plain.feature_info.reduction())
    try:
        if _has_one_stride(plain):
            if output_stride not in (16, reductions[0]):
                raise _unused_stride(name, reductions[0])
            return _columnar(base, levels, reductions[0], {**size, **extra})
        return _pyramid(base, levels, reductions, output_stride, fixed, {**size, **extra})
    except _REFUSALS as error:
        if isinstance(error, UserError):
            raise
        if drop_path and "drop_path" in str(error):
            raise UserError(f"--drop-path cannot be used with {name}, which has none") from error
        raise _unsupported(
            name, f"features at stride 4 and at output stride {output_stride} ({first_line(error)})"
        ) from error


@cache
def is_columnar(name: str) -> bool:
    """Whether all levels of a timm encoder have one stride, as those of a plain ViT do.

    Raises:
        UserError: as ``build_encoder``.
    """
    with torch.device("meta"):
        return _has_one_stride(_probe(name)[2])


def encode(encoder: nn.Module, layout: Layout, image: Tensor) -> tuple[Tensor, ...]:
    """(B, 3, H, W) float, normalised → one (B, C, h, w) for each level, with the padding."""
    outputs = encoder(padded(image, layout.multiple))
    if layout.channels_last:
        outputs = [x.permute(0, 3, 1, 2) for x in outputs]
    return tuple(outputs)


def padded(image: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W) with zeros below and to the right, so that a number divides both sides."""
    if multiple == 1:
        return image
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % multiple, 0, -height % multiple))


def blocks_of_levels(depth: int, levels: int) -> tuple[int, ...]:
    """Indices of the blocks that are the levels of a columnar encoder of this depth, from 0.

    There are 4 levels, 2 (the first of the four and the last) or 1 (the last).
    """
    four = _BLOCKS.get(depth) or tuple(max(0, depth * k // 4 - 1) for k in (1, 2, 3, 4))
    return {4: four, 2: (four[0], four[3]), 1: (four[3],)}[levels]


def architecture(name: str) -> str:
    """The architecture of an encoder's name, without the tag of its weights.

    Raises:
        UserError: if timm has no such encoder or weights; the message names the nearest.
    """
    base, _, tag = name.partition(".")
    if base not in timm.list_models(base):
        near = ", ".join(nearest_first(base, timm.list_models())[:4])
        raise UserError(f"--model {name} is not an encoder of timm; nearest: {near}")
    if tag and name not in (tagged := timm.list_pretrained(f"{base}.*")):
        raise UserError(
            f"--model {name}: timm has no such weights of {base}; available: {', '.join(tagged)}"
        )
    return base


def _probe(name: str) -> tuple[str, bool, Any, dict[str, Any]]:
    """What ``build_encoder`` has to know of a name.

    Returns:
        The architecture, whether its input size is fixed, an encoder with random weights, from
        which strides are read, and the arguments of timm that allow any size.
    """
    base = architecture(name)
    config = timm.get_pretrained_cfg(base, allow_unregistered=False)
    fixed = bool(config is not None and config.fixed_input_size)
    try:
        return base, fixed, *_built(base, fixed)
    except _REFUSALS as error:
        raise _unsupported(name, f"feature maps ({first_line(error)})") from error


def _has_one_stride(encoder: Any) -> bool:
    reductions = encoder.feature_info.reduction()
    return isinstance(encoder, FeatureGetterNet) and len(set(reductions)) == 1


def _built(base: str, fixed: bool) -> tuple[Any, dict[str, Any]]:
    if not fixed:
        return timm.create_model(base, features_only=True), {}
    for size in _ANY_SIZE:
        try:
            with torch.device("meta"):  # large ones take seconds to initialise
                return timm.create_model(base, features_only=True, **size), size
        except TypeError:  # it does not know the option
            continue
    config: Any = timm.get_pretrained_cfg(base)
    side = config.input_size[-1]
    raise RuntimeError(f"it reads images of {side}×{side} pixels only")


def _columnar(base: str, levels: int, patch: int, options: Mapping[str, Any]) -> tuple[Any, Layout]:
    model: Any = timm.create_model(base, num_classes=0, **options)
    indices = blocks_of_levels(len(model.feature_info), levels)
    encoder: Any = FeatureGetterNet(model, out_indices=indices, norm=True)
    return encoder, Layout(
        channels=tuple(encoder.feature_info.channels()),
        strides=(patch,) * levels,
        columnar=True,
        multiple=patch,
        stages=len(model.feature_info),
    )


def _pyramid(
    base: str,
    levels: int,
    reductions: Sequence[int],
    output_stride: int,
    fixed: bool,
    options: Mapping[str, Any],
) -> tuple[Any, Layout]:
    last = len(reductions) - 1
    finest = reductions.index(4)
    wanted = {
        4: tuple(range(finest, last + 1)), 2: (finest, last), 1: (last,)
    }[levels]  # fmt: skip
    if len(wanted) != levels:
        raise ValueError(f"its strides are {', '.join(map(str, reductions))}")
    options = {"features_only": True, "out_indices": wanted, **options}
    encoder: Any = None
    strided = not fixed
    if strided:
        try:
            encoder = timm.create_model(base, output_stride=output_stride, **options)
        except (TypeError, NotImplementedError):  # it cannot dilate its convolutions
            strided = False
    if not strided:
        if output_stride not in (16, reductions[last]):
            raise _unused_stride(base, reductions[last])
        encoder = timm.create_model(base, **options)
    info = encoder.feature_info
    return encoder, Layout(
        channels=tuple(info.channels()),
        strides=tuple(min(r, output_stride) if strided else r for r in info.reduction()),
        strided=strided,
        multiple=reductions[last] if fixed else 1,
        channels_last=str(getattr(encoder, "output_fmt", "NCHW")).endswith("NHWC"),
        stages=len(reductions),
    )


def _unused_stride(name: str, stride: int) -> UserError:
    return UserError(
        f"--deeplab.output-stride cannot change that of {name}, which is {stride}; leave it out"
    )


def _unsupported(name: str, what: str) -> UserError:
    return UserError(
        f"--model {name} cannot return {what}; use an encoder such as vit_small_patch14_dinov2, "
        "convnext_tiny, swin_tiny_patch4_window7_224, resnet50, tf_efficientnet_lite0 or "
        "mobilenetv3_large_100"
    )
