"""The alternatives to AugIN in table VII.

Each takes (B, C, H, W) float images, (B, H, W) bool valid pixels and the (B,) int64 index of each
image's partner, as ``augin`` does. An image is unchanged if it or its partner has no valid pixels.
Invalid pixels are neither used nor changed. The S5Mars paper names the three methods but none of
their settings.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from s5mars.augment.statistics import moments
from s5mars.devices import full_precision

Alternative = Literal["efdm", "wct", "fda"]

COVARIANCE_EPSILON = 1e-5
"""Added to the variances that whitening divides by: a deviation of 0.003, below one grey level."""

FDA_BETA = 0.01
"""Half the side of the low-frequency window, as a share of the image's shorter side.

The smallest of the three that the FDA paper uses (0.01, 0.05, 0.09): larger windows transfer more
of the partner's shapes. A crop below 100 pixels exchanges only the channel means.
"""


def efdm(image: Tensor, valid: Tensor, *, partner: Tensor) -> Tensor:
    """Exact feature distribution matching of sorted values, channel by channel.

    Zhang et al., CVPR 2022, section 3.2: the pixel of rank r takes the partner's value of rank r.
    With n valid pixels here and m there, it takes the partner's quantile (r + 1/2) / n, between two
    sorted values by linear interpolation; for n = m that is rank r exactly. Equal values are
    ranked in the order of their pixels, as a stable sort leaves them.
    """
    shape = image.shape
    usable = valid.flatten(1).unsqueeze(1)
    # Infinity sorts last, so the first n places hold the valid pixels.
    values, pixels = image.flatten(2).masked_fill(~usable, torch.inf).sort(dim=2, stable=True)
    count = usable.sum(2, keepdim=True).double()
    own, other = count.clamp(min=1), count[partner]
    rank = torch.arange(values.shape[2], device=image.device, dtype=torch.float64)
    last = (other - 1).clamp(min=0)
    position = ((rank + 0.5) * (other / own) - 0.5).clamp(min=0).minimum(last)
    position = position.expand(values.shape)
    below = position.long()
    above = (below + 1).minimum(last.long())
    theirs = values[partner]
    low, high = theirs.gather(2, below), theirs.gather(2, above)
    matched = torch.lerp(low, high, (position - below).to(image.dtype))
    moved = torch.empty_like(values).scatter(2, pixels, matched).view(shape)
    return torch.where(_exchanging(valid, partner), moved, image)


def wct(
    image: Tensor, valid: Tensor, *, partner: Tensor, epsilon: float = COVARIANCE_EPSILON
) -> Tensor:
    """Whitening and colouring: the image takes the partner's mean colour and channel covariance.

    Li et al., NeurIPS 2017, eq. 2 and 3, on the channels of the image instead of features:
    Σ_j^(1/2) · Σ_i^(−1/2) · (u_i − μ_i) + μ_j, with ε, above 0 and in squared units of the image,
    added to every variance of both, which keeps grey images finite.
    """
    mean, _ = moments(image, valid)
    weight = valid.unsqueeze(1).to(image.dtype)
    count = weight.sum((2, 3)).clamp(min=1).unsqueeze(2)
    with full_precision(image.device):  # half precision is too coarse for a covariance
        centred = (image - mean).masked_fill(~valid.unsqueeze(1), 0).flatten(2)
        covariance = centred @ centred.transpose(1, 2) / count
        variances, axes = torch.linalg.eigh(covariance)
        scale = (variances.clamp(min=0) + epsilon).sqrt().unsqueeze(1)
        whiten = axes / scale @ axes.transpose(1, 2)
        colour = axes * scale @ axes.transpose(1, 2)
        moved = (colour[partner] @ whiten @ centred).view(image.shape) + mean[partner]
    return torch.where(_exchanging(valid, partner), moved, image)


def fda(image: Tensor, valid: Tensor, *, partner: Tensor, beta: float = FDA_BETA) -> Tensor:
    """Fourier domain adaptation: the partner's amplitudes at low frequencies, the image's phases.

    Yang and Soatto, CVPR 2020, eq. 1–3: F⁻¹(M_β · |F(u_j)| + (1 − M_β) · |F(u_i)|, ∠F(u_i)). The
    window M_β, β in [0, 0.5], reaches ⌊β · min(H, W)⌋ frequencies on either side of 0. Invalid
    pixels hold the mean of their channel before the transform.
    """
    height, width = image.shape[2:]
    mean, _ = moments(image, valid)
    spectrum = torch.fft.rfft2(image.where(valid.unsqueeze(1), mean))
    reach = int(beta * min(height, width))
    rows = torch.fft.fftfreq(height, 1 / height, device=image.device).abs() <= reach
    columns = torch.fft.rfftfreq(width, 1 / width, device=image.device) <= reach
    exchanged = torch.polar(spectrum.abs()[partner], spectrum.angle())
    mixed = torch.where(rows[:, None] & columns, exchanged, spectrum)
    moved = torch.fft.irfft2(mixed, s=(height, width)).to(image.dtype)
    return torch.where(_exchanging(valid, partner), moved, image)


def _exchanging(valid: Tensor, partner: Tensor) -> Tensor:
    """(B, 1, H, W) bool: valid pixels of images whose partner has valid pixels too."""
    some = valid.any(2).any(1)
    return (valid & some[partner][:, None, None]).unsqueeze(1)
