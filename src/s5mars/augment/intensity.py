"""Operations that change the colours of one image and move nothing.

Every function takes an image (3, H, W), float in [0, 1], and its validity (H, W), bool, and returns
an image in [0, 1]. Statistics and filters (normalised convolutions) use only valid pixels; other
pixels, and images without valid pixels, are returned unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as TF
from torch import Tensor

from s5mars.devices import full_precision

BLUR_RADIUS = 3.0
"""Radius of a Gaussian kernel in standard deviations."""

SMOOTH = ((1.0, 1.0, 1.0), (1.0, 5.0, 1.0), (1.0, 1.0, 1.0))
"""The kernel that sharpness blends with, as in PIL and torchvision."""


def brightness(image: Tensor, valid: Tensor, *, factor: float) -> Tensor:
    """Multiply by a factor: 0 is black, 1 changes nothing."""
    return _on_valid(image, valid, partial(TF.adjust_brightness, brightness_factor=factor))


def contrast(image: Tensor, valid: Tensor, *, factor: float) -> Tensor:
    """Blend with the mean grey value of the valid pixels: 0 is that grey, 1 changes nothing."""
    return _on_valid(image, valid, partial(TF.adjust_contrast, contrast_factor=factor))


def saturation(image: Tensor, valid: Tensor, *, factor: float) -> Tensor:
    """Blend with the grey image: 0 is grey, 1 changes nothing."""
    return _on_valid(image, valid, partial(TF.adjust_saturation, saturation_factor=factor))


def hue(image: Tensor, valid: Tensor, *, shift: float) -> Tensor:
    """Shift the hue by a share of the circle, in [−0.5, 0.5]; 0 changes nothing."""
    return _on_valid(image, valid, partial(TF.adjust_hue, hue_factor=shift))


def grayscale(image: Tensor, valid: Tensor) -> Tensor:
    """The luma of each pixel in all three channels."""
    return _on_valid(image, valid, partial(TF.rgb_to_grayscale, num_output_channels=3))


def autocontrast(image: Tensor, valid: Tensor) -> Tensor:
    """Stretch each channel from the smallest and largest valid value to [0, 1]."""
    return _on_valid(image, valid, TF.autocontrast)


def equalize(image: Tensor, valid: Tensor) -> Tensor:
    """Flatten each channel's histogram of the valid pixels, in 256 levels as PIL does."""
    return _on_valid(image, valid, TF.equalize)


def solarize(image: Tensor, valid: Tensor, *, threshold: float) -> Tensor:
    """Invert the values that are at or above a threshold in [0, 1]."""
    return _on_valid(image, valid, partial(TF.solarize, threshold=threshold))


def posterize(image: Tensor, valid: Tensor, *, bits: int) -> Tensor:
    """Keep the first bits, in 1..8, of each value in 256 levels."""

    def reduced(pixels: Tensor) -> Tensor:
        # torchvision's own rule for floats steps by 1/2^bits, where 8 bits would not be exact.
        levels = TF.posterize(TF.to_dtype(pixels, torch.uint8, scale=True), bits=bits)
        result: Tensor = TF.to_dtype(levels, pixels.dtype, scale=True)
        return result

    return _on_valid(image, valid, reduced)


def gaussian_blur(image: Tensor, valid: Tensor, *, sigma: float) -> Tensor:
    """Gaussian blur with a standard deviation in pixels, by normalised convolution."""
    radius = max(1, int(BLUR_RADIUS * sigma + 0.5))
    position = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (position / sigma).square())
    return _normalised_convolution(image, valid, kernel[:, None], kernel[None, :])


def sharpness(image: Tensor, valid: Tensor, *, factor: float) -> Tensor:
    """Blend with the smoothed image: 0 is smooth, 1 changes nothing, above it sharpens."""
    kernel = torch.tensor(SMOOTH, dtype=image.dtype, device=image.device)
    smooth = _normalised_convolution(image, valid, kernel)
    return (factor * image + (1 - factor) * smooth).clamp(0, 1).where(valid, image)


def add_noise(image: Tensor, valid: Tensor, *, noise: Tensor) -> Tensor:
    """Add (3, H, W) noise and clip."""
    return (image + noise).clamp(0, 1).where(valid, image)


def fill(image: Tensor, valid: Tensor, *, region: Tensor, value: float) -> Tensor:
    """Set all channels of a region (H, W), bool, to one value."""
    return image.masked_fill(region & valid, value)


def _on_valid(image: Tensor, valid: Tensor, operation: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a pixelwise operation to the valid pixels, arranged as one row."""
    pixels = image[:, valid]
    if not pixels.numel():
        return image
    result = image.clone()
    result[:, valid] = operation(pixels.unsqueeze(1)).squeeze(1)
    return result


def _normalised_convolution(image: Tensor, valid: Tensor, *kernels: Tensor) -> Tensor:
    """Weighted means of the valid pixels under the kernels (h, w), applied one after the other."""
    weight = valid.unsqueeze(0).to(image.dtype)
    stack = torch.cat([image.where(valid, 0), weight]).unsqueeze(1)
    with full_precision(image.device):
        for kernel in kernels:
            stack = F.conv2d(stack, kernel[None, None], padding="same")
    smooth, mass = torch.split(stack.squeeze(1), [3, 1])
    # A valid pixel contributes its own weight, so its mass is above 0.
    mean: Tensor = smooth / mass.where(valid, 1)
    return mean.clamp(0, 1).where(valid, image)
