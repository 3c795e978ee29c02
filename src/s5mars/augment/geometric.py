"""Geometric steps that move an image and its targets together."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from s5mars.classes import IGNORE
from s5mars.devices import full_precision, send
from s5mars.randomness import Generators, each
from s5mars.types import Targets, View


def object_transforms(
    region: Tensor,
    generators: Generators,
    *,
    rotation: float,
    flip: float,
    rescale: tuple[float, float],
) -> Tensor:
    """Random rotation, flip and rescaling of each object about its own centre, table IX.

    Args:
        region: (B, H, W) bool, the objects.
        generators: one per object.
        rotation: largest angle in degrees, in either direction.
        flip: probability of a horizontal flip.
        rescale: smallest and largest factor; drawn log-uniformly.

    Returns:
        (B, 2, 3) float: affine maps from output to input pixels, in the normalised coordinates
        of ``torch.nn.functional.affine_grid``, which fix the centre of each object's box.
    """
    height, width = region.shape[1:]
    angle = np.deg2rad(each(generators, lambda g: g.uniform(-rotation, rotation)))
    factor = np.exp(each(generators, lambda g: g.uniform(*np.log(rescale))))
    mirror = np.where(each(generators, lambda g: g.random()) < flip, -1.0, 1.0)
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
    linear = send(torch.from_numpy(matrix).float(), region.device)
    centre = _box_centre(region)
    with full_precision(region.device):
        shift = centre - (linear @ centre.unsqueeze(-1)).squeeze(-1)
    return torch.cat([linear, shift.unsqueeze(-1)], dim=-1)


def warp(view: View, region: Tensor, *, theta: Tensor) -> tuple[View, Tensor]:
    """Apply affine maps to an image, its targets and a region.

    Labels, validity and the region use the nearest pixel; pixels from outside the image are
    ignored, not valid, and not in the region.
    """
    with full_precision(theta.device):  # autocast would place pixels up to one pixel off
        grid = F.affine_grid(theta, list(view.image.shape), align_corners=False)
    targets = view.targets
    smooth = torch.cat([view.image, targets.probability.to(view.image.dtype)], dim=1)
    smooth = F.grid_sample(smooth, grid, padding_mode="border", align_corners=False)
    channels = view.image.shape[1]
    # A single nearest pass: +1 distinguishes "outside" (0) from class 0.
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
    """(B, 2) x, y of the centre of each region's bounding box in [−1, 1]; 0 if it is empty."""
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
    size: tuple[int, int],
    generators: Generators,
    *,
    beta: float = 4.0,
    alpha: float | None = None,
) -> Tensor:
    """Random CutMix rectangles: side √(1 − λ) of the image, λ ~ Beta(α, β), centre uniform.

    Yun et al., ICCV 2019, with the released code's β = 4. Rectangles are clipped at the border.

    Args:
        size: height and width of the images.
        generators: one per image.
        beta: β.
        alpha: α; None means ``beta``.

    Returns:
        (B, H, W) bool.
    """
    alpha = beta if alpha is None else alpha
    side = np.sqrt(1 - each(generators, lambda g: g.beta(alpha, beta)))
    centre = each(generators, lambda g: g.uniform(0, 1, 2))
    return boxes(size, centre=centre.T, side=np.stack([side, side]))


def inner_rectangles(
    size: tuple[int, int], generators: Generators, *, probability: float = 0.5
) -> Tensor:
    """Random rectangles that lie inside the image, as in the code of UniMatch and its FixMatch.

    They cover 0.02 to 0.4 of the image; the height is 0.3 to 1/0.3 of the width.

    Args:
        size: height and width of the images.
        generators: one per image.
        probability: probability that an image has a rectangle; other regions are empty.

    Returns:
        (B, H, W) bool.
    """

    def draw(generator: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if generator.random() >= probability:
            return np.zeros(2), np.zeros(2)
        share = generator.uniform(0.02, 0.4)
        while True:
            stretch = generator.uniform(0.3, 1 / 0.3)
            side = np.sqrt([share * stretch, share / stretch])
            corner = generator.uniform(0, 1, 2)
            if (corner + side <= 1).all():
                return corner + side / 2, side

    drawn = each(generators, draw)
    return boxes(size, centre=drawn[:, 0].T, side=drawn[:, 1].T)


def boxes(
    size: tuple[int, int], *, centre: NDArray[np.float64], side: NDArray[np.float64]
) -> Tensor:
    """Rectangles as regions, clipped at the border; a side of 0 is empty.

    Args:
        size: height and width of the image.
        centre: (2, B) rows and columns, in [0, 1].
        side: (2, B) heights and widths, as shares of the image.

    Returns:
        (B, H, W) bool.
    """
    rows, columns = (_interval(*axis) for axis in zip(centre, side, size, strict=True))
    return torch.from_numpy(rows[:, :, None] & columns[:, None, :])


def _interval(
    centre: NDArray[np.float64], side: NDArray[np.float64], length: int
) -> NDArray[np.bool_]:
    position = (np.arange(length) + 0.5) / length
    inside: NDArray[np.bool_] = np.abs(position[None] - centre[:, None]) <= side[:, None] / 2
    return inside & (side[:, None] > 0)
