"""A small head on frozen features, fitted to painted pixels in about a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from s5mars.classes import IGNORE
from s5mars.labels.loop.features import Pyramid, StartModel
from s5mars.randomness import generator

SAMPLES = 12_000
"""Painted pixels of all images together that a head is fitted to."""

MOST_PER_IMAGE = 240
"""Painted pixels of one class and image among them."""

DECAY = 0.05
"""Weight of the squared weights in the loss."""

ITERATIONS = 20
"""Of L-BFGS: twice as many changed the mean IoU by less than a point on MarsScapes."""


_NEVER = -1e4


@dataclass(frozen=True)
class PaintedPixels:
    """Features and classes of some painted pixels of an image."""

    features: Tensor  # (N, C) float16
    labels: Tensor  # (N,) int64


def painted_pixels(
    pyramid: Pyramid,
    labels: NDArray[np.uint8],
    *,
    most: int = MOST_PER_IMAGE,
    balanced: bool = True,
    seed: int = 0,
) -> PaintedPixels:
    """Draw painted pixels of an image.

    Args:
        labels: (H, W) class index, 255 where nothing is painted.
        most: number of pixels; of each class if ``balanced``, else of all together.
        balanced: draw from each class, so that rare ones count; not for scores.
    """
    random = generator(seed, "painted pixels")
    flat = labels.ravel()
    if balanced:
        places = [np.flatnonzero(flat == c) for c in np.unique(flat) if c != IGNORE]
    else:
        places = [np.flatnonzero(flat != IGNORE)]
    drawn = [p if len(p) <= most else random.choice(p, most, replace=False) for p in places]
    chosen = np.sort(np.concatenate(drawn)) if drawn else np.zeros(0, np.int64)
    height, width = labels.shape
    rows, columns = np.divmod(chosen, width)
    return PaintedPixels(
        gathered(pyramid, (rows + 0.5) / height, (columns + 0.5) / width),
        torch.from_numpy(flat[chosen].astype(np.int64)),
    )


def gathered(pyramid: Pyramid, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Tensor:
    """(N, C) float16 features at places in 0..1 of the image, interpolated in each map."""
    grid = torch.from_numpy(np.stack([columns, rows], 1) * 2 - 1).float()[None, None]
    parts = [
        F.grid_sample(level[None].float(), grid, padding_mode="border", align_corners=False)[
            0, :, 0
        ]
        for level in pyramid
    ]
    return torch.cat(parts).T.half()


@dataclass(frozen=True)
class Head:
    """Softmax regression on standardised features."""

    weight: Tensor  # (K, C) on raw features
    bias: Tensor  # (K,)

    def logits(self, features: Tensor) -> Tensor:
        """(N, C) → (N, K) float32."""
        return features.float() @ self.weight.T + self.bias

    def map(self, pyramid: Pyramid, size: tuple[int, int] | None = None) -> Tensor:
        """(K, H, W) float32 probabilities of an image; at the finest map's size without ``size``.

        The logits of each map are interpolated and added, which equals, for a linear head, the
        logits of the interpolated maps.
        """
        finest = pyramid[0].shape[-2], pyramid[0].shape[-1]
        total = self.bias[:, None, None]
        at = 0
        for level in pyramid:
            weight = self.weight[:, at : at + len(level)]
            at += len(level)
            part = torch.einsum("kc,chw->khw", weight, level.float())
            total = total + resized(part, finest)
        if size is not None:
            total = resized(total, size)
        return total.softmax(0)


def prior_head(model: StartModel, channels: int, classes: Sequence[str]) -> Head | None:
    """A head that repeats the start model's own classes; None if it shares fewer than two of them.

    The model's log-probabilities are the last of ``channels`` features. Classes that it lacks get
    no probability.
    """
    theirs = model.classes or ()
    shared = [name for name in classes if name in theirs]
    if len(shared) < 2:
        return None
    weight, bias = torch.zeros(len(classes), channels), torch.zeros(len(classes))
    for index, name in enumerate(classes):
        if name in shared:
            weight[index, channels - len(theirs) + theirs.index(name)] = 1
        else:
            bias[index] = _NEVER
    return Head(weight, bias)


def resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(K, h, w) → (K, H, W), bilinear."""
    if tuple(values.shape[-2:]) == size:
        return values
    return F.interpolate(values[None], size, mode="bilinear", align_corners=False)[0]


def fit_head(
    painted: Sequence[PaintedPixels], classes: int, *, start: Head | None = None
) -> Head | None:
    """Fit a head to painted pixels; None where they show fewer than two classes.

    Minimises the cross-entropy, in which each class counts with the root of its frequency, plus
    ``DECAY`` times the squared weights, by L-BFGS. Classes without a pixel get no probability.
    """
    labels = torch.cat([p.labels for p in painted]) if painted else torch.zeros(0)
    counts = torch.bincount(labels.long(), minlength=classes).float()
    if (counts > 0).sum() < 2:
        return None
    features = torch.cat([p.features for p in painted])
    if len(features) > SAMPLES:
        # Evenly over all images; each image's pixels are already drawn at random.
        chosen = torch.linspace(0, len(features) - 1, SAMPLES).long()
        features, labels = features[chosen], labels[chosen]
        counts = torch.bincount(labels, minlength=classes).float()
    features = features.float()
    mean, deviation = features.mean(0), features.std(0).clamp_min(1e-3)
    inputs = (features - mean) / deviation
    importance = counts.clamp_min(1).rsqrt()
    importance = importance / importance[labels].mean()
    each = importance[labels]
    seen = counts > 0
    weight = torch.zeros(classes, inputs.shape[1])
    bias = torch.zeros(classes)
    if start is not None and start.weight.shape == weight.shape:
        weight = start.weight * deviation
        bias = (start.bias + start.weight @ mean).clamp_min(-20)  # of classes without a pixel
    weight.requires_grad_(True)
    bias.requires_grad_(True)
    absent = torch.where(seen, 0.0, _NEVER)
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, history_size=8, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = inputs @ weight.T + bias + absent
        loss = (F.cross_entropy(logits, labels, reduction="none") * each).mean()
        total = loss + DECAY * (weight**2).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        raw = weight / deviation
        return Head(raw.detach(), (bias + absent - raw @ mean).detach())
