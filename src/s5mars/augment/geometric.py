"""Geometric steps that move an image and its targets together."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from s5mars.classes import IGNORE
from s5mars.types import Targets, View


def object_transforms(
    region: Tensor,
    generator: np.random.Generator,
    *,
    rotation: float,
    flip: float,
    rescale: tuple[float, float],
) -> Tensor:
    """Random rotation, flip and rescaling of each object about its own centre, table IX.

    Args:
        region: (B, H, W) bool, the objects.
        rotation: largest angle in degrees, either way.
        flip: probability of a horizontal flip.
        rescale: smallest and largest factor; drawn log-uniformly.

    Returns:
        (B, 2, 3) float: affine maps from output to input pixels, in the normalised coordinates
        of ``torch.nn.functional.affine_grid``, which fix the centre of each object's box.
    """
    batch, height, width = region.shape
    angle = np.deg2rad(generator.uniform(-rotation, rotation, batch))
    factor = np.exp(generator.uniform(np.log(rescale[0]), np.log(rescale[1]), batch))
    mirror = np.where(generator.random(batch) < flip, -1.0, 1.0)
    cosine, sine = np.cos(angle) / factor, np.sin(angle) / factor
    # Angles are measured in pixels, so the aspect of the image enters the off-diagonal terms.
    aspect = height / width
    matrix = np.stack(
        [
            np.stack([mirror * cosine, mirror * sine * aspect], -1),
            np.stack([-sine / aspect, cosine], -1),
        ],
        1,
    )
    linear = torch.from_numpy(matrix).to(region.device, torch.float32)
    centre = _box_centre(region)
    shift = centre - (linear @ centre.unsqueeze(-1)).squeeze(-1)
    return torch.cat([linear, shift.unsqueeze(-1)], dim=-1)


def warp(view: View, region: Tensor, *, theta: Tensor) -> tuple[View, Tensor]:
    """Apply affine maps to an image, its targets and a region alike.

    Labels, validity and the region are taken from the nearest pixel; what comes from outside the
    image is ignored, not valid, and not in the region.
    """
    grid = F.affine_grid(theta, list(view.image.shape), align_corners=False).to(view.image.dtype)
    targets = view.targets
    smooth = torch.cat([view.image, targets.probability.to(view.image.dtype)], dim=1)
    smooth = F.grid_sample(smooth, grid, padding_mode="border", align_corners=False)
    channels = view.image.shape[1]
    # One nearest pass: +1 makes "outside" (0) differ from class 0.
    discrete = torch.stack([targets.label + 1.0, targets.valid.float(), region.float()], dim=1)
    discrete = F.grid_sample(
        discrete.to(grid.dtype), grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    label = discrete[:, 0].round().long() - 1
    label = label.where(label >= 0, IGNORE)
    valid, moved = discrete[:, 1] > 0.5, discrete[:, 2] > 0.5
    warped = View(
        image=smooth[:, :channels],
        targets=Targets(probability=smooth[:, channels:], label=label, valid=valid),
    )
    return warped, moved


def _box_centre(region: Tensor) -> Tensor:
    """(B, 2) x, y of the centre of each region's bounding box in [−1, 1]; 0 when it is empty."""
    columns, rows = region.any(1), region.any(2)
    return torch.stack([_middle(columns), _middle(rows)], dim=-1)


def _middle(occupied: Tensor) -> Tensor:
    length = occupied.shape[1]
    position = torch.arange(length, device=occupied.device)
    first = position.where(occupied, length).amin(1)
    last = position.where(occupied, -1).amax(1)
    middle = (first + last + 1) / length - 1
    return middle.where(last >= 0, 0.0)


def rectangles(
    batch: int, size: tuple[int, int], generator: np.random.Generator, *, beta: float = 4.0
) -> Tensor:
    """Random CutMix rectangles: side √(1 − λ) of the image, λ ~ Beta(β, β), centre uniform.

    Yun et al., ICCV 2019, with the released code's β = 4. Rectangles are clipped at the border.

    Returns:
        (B, H, W) bool.
    """
    height, width = size
    side = np.sqrt(1 - generator.beta(beta, beta, batch))
    centre_y, centre_x = generator.uniform(0, 1, (2, batch))
    rows = _interval(centre_y, side, height)
    columns = _interval(centre_x, side, width)
    return torch.from_numpy(rows[:, :, None] & columns[:, None, :])


def _interval(
    centre: NDArray[np.float64], side: NDArray[np.float64], length: int
) -> NDArray[np.bool_]:
    position = (np.arange(length) + 0.5) / length
    inside: NDArray[np.bool_] = np.abs(position[None] - centre[:, None]) <= side[:, None] / 2
    return inside
