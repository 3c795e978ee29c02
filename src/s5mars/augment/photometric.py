"""Photometric strong augmentation: sets of the compared methods and single ones of figure 5.

Each image of a batch draws its own operations and strengths. No pixel moves, so targets do not
change. The pixels that CutOut and pixel dropout erase keep their pseudo-labels, as in FixMatch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from s5mars.augment import intensity
from s5mars.augment.geometric import boxes
from s5mars.errors import require_choice
from s5mars.randomness import Generators

Photometric = Literal[
    "none",
    "fixmatch",
    "augseg",
    "gaussian_noise",
    "cutout",
    "gaussian_blur",
    "hue",
    "contrast",
    "equalize",
    "brightness",
    "dropout",
]

Augmentation = Callable[[Tensor, Tensor, np.random.Generator], Tensor]
"""One image (3, H, W), its validity (H, W), a generator → an image, all as in ``intensity``."""


def photometric(
    image: Tensor, valid: Tensor, *, kind: Photometric, generators: Generators
) -> Tensor:
    """Change the colours of every image of a batch at random.

    - ``none``: nothing.
    - ``fixmatch``: what UniMatch and its FixMatch baseline use (Yang et al., CVPR 2023): with
      probability 0.8 brightness, contrast, saturation (factors within 1 ± 0.5) and hue (± 0.25) in
      random order; with 0.2 greyscale; with 0.5 a Gaussian blur, σ in [0.1, 2] pixels.
    - ``augseg``: one to three different ones of eleven intensity operations (Zhao et al., CVPR
      2023), see ``AUGSEG``.
    - the others: one operation, always applied, each at a random strength. These are the names of
      figure 5 of the S5Mars paper, which gives no ranges: the ones in ``SINGLE`` are this
      project's choice.

    Args:
        image: (B, 3, H, W) float in [0, 1].
        valid: (B, H, W) bool; other pixels are neither used nor changed.
        kind: name of the set of operations.
        generators: one per image, for operations and strengths; equal states give equal results.

    Returns:
        (B, 3, H, W), dtype and range as given.

    Raises:
        UserError: if ``kind`` is unknown.
    """
    require_choice(kind, get_args(Photometric), name="kind")
    if kind == "none":
        return image
    augment = SETS[kind]
    return torch.stack([augment(x, v, g) for x, v, g in zip(image, valid, generators, strict=True)])


def fixmatch_set(image: Tensor, valid: Tensor, generator: np.random.Generator) -> Tensor:
    """Colour jitter, greyscale and blur, each with its own probability."""
    if generator.random() < 0.8:
        for name in generator.permutation(len(JITTER)):
            image = JITTER[name](image, valid, generator)
    if generator.random() < 0.2:
        image = intensity.grayscale(image, valid)
    if generator.random() < 0.5:
        image = gaussian_blur(image, valid, generator)
    return image


def augseg_set(
    image: Tensor, valid: Tensor, generator: np.random.Generator, *, most: int = 3
) -> Tensor:
    """A random number 1..``most`` (k = 3 in the paper) of different operations of ``AUGSEG``.

    The released code draws with replacement, so that one may be applied twice.
    """
    number = generator.integers(1, most + 1)
    for index in generator.choice(len(AUGSEG), size=number, replace=False):
        image = AUGSEG[index](image, valid, generator)
    return image


def uniform(operation: Callable[..., Tensor], **ranges: tuple[float, float]) -> Augmentation:
    """An operation of ``intensity`` whose keywords are drawn uniformly from ranges."""

    def augment(image: Tensor, valid: Tensor, generator: np.random.Generator) -> Tensor:
        drawn = {name: generator.uniform(*limits) for name, limits in ranges.items()}
        return operation(image, valid, **drawn)

    return augment


brightness = uniform(intensity.brightness, factor=(0.5, 1.5))
contrast = uniform(intensity.contrast, factor=(0.5, 1.5))
saturation = uniform(intensity.saturation, factor=(0.5, 1.5))
hue = uniform(intensity.hue, shift=(-0.25, 0.25))

JITTER: tuple[Augmentation, ...] = (brightness, contrast, saturation, hue)
"""The parts of FixMatch's colour jitter, with its ranges."""

equalize = uniform(intensity.equalize)

gaussian_blur = uniform(intensity.gaussian_blur, sigma=(0.1, 2.0))
"""σ in pixels, as FixMatch and AugSeg."""


def gaussian_noise(image: Tensor, valid: Tensor, generator: np.random.Generator) -> Tensor:
    """Independent noise in every pixel and channel; standard deviation in [0, 0.1]."""
    sigma = generator.uniform(0.0, 0.1)
    noise = torch.from_numpy(sigma * generator.standard_normal(tuple(image.shape)))
    return intensity.add_noise(image, valid, noise=noise.to(image))


def cutout(image: Tensor, valid: Tensor, generator: np.random.Generator) -> Tensor:
    """A rectangle, its sides one share in [0, 0.5] of the image's, becomes grey (0.5).

    DeVries & Taylor, 2017; the range is that of FixMatch's appendix. The centre is uniform, and the
    rectangle is clipped at the border.
    """
    side = generator.uniform(0.0, 0.5)
    region = boxes(
        (image.shape[1], image.shape[2]),
        centre=generator.uniform(0.0, 1.0, (2, 1)),
        side=np.full((2, 1), side),
    )[0]
    return intensity.fill(image, valid, region=region.to(image.device), value=0.5)


def dropout(image: Tensor, valid: Tensor, generator: np.random.Generator) -> Tensor:
    """Pixels become black, each with the same probability in [0, 0.2].

    The paper's Dropout acts on features; this is its counterpart on the input, without the division
    by 1 − p, which would exceed the range.
    """
    probability = generator.uniform(0.0, 0.2)
    dropped = torch.from_numpy(generator.random(tuple(valid.shape)) < probability)
    return intensity.fill(image, valid, region=dropped.to(image.device), value=0.0)


def _identity(image: Tensor, valid: Tensor, generator: np.random.Generator) -> Tensor:
    return image


def _posterize(image: Tensor, valid: Tensor, generator: np.random.Generator) -> Tensor:
    return intensity.posterize(image, valid, bits=int(generator.integers(4, 9)))


def _solarize(image: Tensor, valid: Tensor, generator: np.random.Generator) -> Tensor:
    return intensity.solarize(image, valid, threshold=generator.integers(1, 257) / 256)


AUGSEG: tuple[Augmentation, ...] = (
    _identity,
    uniform(intensity.autocontrast),
    equalize,
    gaussian_blur,
    uniform(intensity.contrast, factor=(0.05, 0.95)),  # towards grey
    uniform(intensity.sharpness, factor=(0.05, 0.95)),
    uniform(intensity.saturation, factor=(0.05, 0.95)),
    uniform(intensity.brightness, factor=(0.05, 0.95)),
    uniform(intensity.hue, shift=(-0.5, 0.5)),
    _posterize,  # to 4..8 bits; the released code's 8 − ⌈4u⌉ never gives 8
    _solarize,  # from 1/256..1
)
"""The eleven operations of AugSeg's table of intensity augmentations, with its ranges."""

SINGLE: Mapping[Photometric, Augmentation] = {
    "gaussian_noise": gaussian_noise,
    "cutout": cutout,
    "gaussian_blur": gaussian_blur,
    "hue": hue,
    "contrast": contrast,
    "equalize": equalize,
    "brightness": brightness,
    "dropout": dropout,
}
"""The single augmentations of figure 5 that change colours."""

SETS: Mapping[Photometric, Augmentation] = {
    "fixmatch": fixmatch_set,
    "augseg": augseg_set,
    **SINGLE,
}
