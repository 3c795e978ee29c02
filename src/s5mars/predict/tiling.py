"""Overlapping windows over an image of any size, blended in blocks, line by line.

Windows lie on a regular grid, so a blending weight is the product of a vertical and a horizontal
weight. Both are normalised beforehand by their sum over the windows (a partition of unity), so
blending is a weighted sum without a second pass. Columns to the left of the next window are
complete for their line of windows; their rows above the next line are final and are yielded as a
block, and the other rows wait for the next line. Memory thus holds the class scores of one window
and of the rows that two lines share, (C, window - step, W), for an image of any height.

Softmax probabilities are blended, not logits. Logits have no common scale between windows: one
confident window would outvote its neighbours by magnitude. Probabilities are bounded, and their
weighted mean with weights that sum to one is again a probability, so confidence keeps its meaning
across the seams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from s5mars.predict.inference import SMALLEST_SIDE

ProbabilityBlock = tuple[slice, slice, Tensor]
"""Rows and columns of an image, and (C, rows, columns) float32."""


@dataclass(frozen=True)
class Axis:
    """Windows along one side of an image."""

    starts: tuple[int, ...]  # ascending; first is 0, the last window ends at the border
    window: int
    weights: NDArray[np.float32]  # (windows, window), positive; sum to 1 over each pixel


@dataclass(frozen=True)
class Grid:
    """Where the windows of one image stand and how they blend."""

    rows: Axis
    columns: Axis

    @classmethod
    def over(cls, height: int, width: int, *, window: int, overlap: float) -> Grid:
        """Lay windows over an image.

        Args:
            window: side of a window in pixels; a shorter image side gets one window of its length.
        """
        return cls(
            _axis(height, window=window, overlap=overlap),
            _axis(width, window=window, overlap=overlap),
        )

    @property
    def corners(self) -> list[tuple[int, int]]:
        """(top, left) of every window, line by line."""
        return [(top, left) for top in self.rows.starts for left in self.columns.starts]


def blended(
    network: Callable[[Tensor], Tensor],
    image: NDArray[np.uint8],
    *,
    window: int,
    overlap: float,
    batch: int,
) -> Iterator[ProbabilityBlock]:
    """Class probabilities of an image, in blocks that cover it once, line by line.

    Windows are added in the same order for any batch size, so the batch size matters only if the
    network's own output depends on it.

    Args:
        network: (B, 3, h, w) uint8 on the CPU → (B, C, h, w) float32 probabilities on any device.
        image: (H, W, 3) uint8, RGB.
        overlap: smallest fraction of a window that overlaps its neighbour.

    Yields:
        ``(rows, columns, probabilities)``: two slices of the image, and (C, rows, columns)
        float32 on the network's device. The tensor is valid until the next one is requested.
    """
    height, width = image.shape[:2]
    grid = Grid.over(height, width, window=window, overlap=overlap)
    scores = _window_scores(network, image, grid, batch=batch)
    if len(grid.corners) == 1:
        yield slice(0, height), slice(0, width), next(scores)
        return
    yield from _blocks(scores, grid, height=height, width=width)


def enlarged(
    blocks: Iterator[ProbabilityBlock], *, classes: int, size: tuple[int, int]
) -> Iterator[ProbabilityBlock]:
    """Enlarge the blocks of a resized image to the original size, bilinearly, some rows at a time.

    All class probabilities of the resized image are in memory.

    Args:
        blocks: cover the resized image once.
    """
    parts = [(rows, columns, block.clone()) for rows, columns, block in blocks]
    small = (max(r.stop for r, _, _ in parts), max(c.stop for _, c, _ in parts))
    whole = parts[0][2].new_empty(classes, *small)
    for rows, columns, block in parts:
        whole[:, rows, columns] = block
    del parts
    height, width = size
    for top in range(0, height, _ROWS):
        bottom = min(top + _ROWS, height)
        at = (torch.arange(top, bottom, device=whole.device) + 0.5) * small[0] / height - 0.5
        at = at.clamp(0, small[0] - 1)
        above = at.floor().long()
        below = (above + 1).clamp(max=small[0] - 1)
        tall = torch.lerp(whole[:, above], whole[:, below], (at - above)[:, None])
        wide = F.interpolate(
            tall[None], size=(bottom - top, width), mode="bilinear", align_corners=False
        )
        yield slice(top, bottom), slice(0, width), wide[0]


_ROWS = 256
"""Rows of an enlarged map that are computed at a time."""


def _blocks(
    scores: Iterator[Tensor], grid: Grid, *, height: int, width: int
) -> Iterator[ProbabilityBlock]:
    tops, lefts = grid.rows.starts, grid.columns.starts
    below: Tensor | None = None  # scores of finished lines for rows still to come
    line_scores: Tensor | None = None  # scores of this line, from the left of the current window
    shared = 0  # rows of `below` in use
    for line, top in enumerate(tops):
        bottom = tops[line + 1] if line + 1 < len(tops) else height
        done = bottom - top
        kept = grid.rows.window - done
        for column, left in enumerate(lefts):
            probability = next(scores)
            if below is None or line_scores is None:
                most = grid.rows.window - min(np.diff(tops), default=grid.rows.window)
                below = probability.new_zeros(len(probability), int(most), width)
                line_scores = torch.zeros_like(probability)
            weight = np.outer(grid.rows.weights[line], grid.columns.weights[column])
            line_scores.addcmul_(probability, torch.from_numpy(weight).to(line_scores.device))
            right = lefts[column + 1] if column + 1 < len(lefts) else width
            columns = slice(left, right)
            complete = line_scores[:, :, : right - left]
            complete[:, :shared] += below[:, :shared, columns]
            below[:, :kept, columns] = complete[:, done:]
            yield slice(top, bottom), columns, complete[:, :done]
            _move_left(line_scores, right - left)
        shared = kept


def _move_left(scores: Tensor, step: int) -> None:
    rest = scores.shape[2] - step
    for plane in scores:  # plane by plane: the copy that the move needs stays small
        plane[:, :rest] = plane[:, step:].clone()
    scores[:, :, rest:] = 0


def _window_scores(
    network: Callable[[Tensor], Tensor], image: NDArray[np.uint8], grid: Grid, *, batch: int
) -> Iterator[Tensor]:
    """(C, h, w) for every window, in the order of ``grid.corners``."""
    height, width = grid.rows.window, grid.columns.window
    image = _padded(image)
    corners = grid.corners
    for first in range(0, len(corners), batch):
        windows = [
            image[top : top + max(height, SMALLEST_SIDE), left : left + max(width, SMALLEST_SIDE)]
            for top, left in corners[first : first + batch]
        ]
        # Channels come last in the array, too: the tensor is channels_last without a copy.
        stack = torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2)
        yield from network(stack)[:, :, :height, :width]


def _padded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mirror an image below and to the right until both sides have ``SMALLEST_SIDE`` pixels."""
    missing = [max(SMALLEST_SIDE - side, 0) for side in image.shape[:2]]
    if not any(missing):
        return image
    return np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")


def _axis(length: int, *, window: int, overlap: float) -> Axis:
    window = min(window, length)
    step = max(1, int(window * (1 - overlap)))
    number = -(-(length - window) // step) + 1
    # Spread evenly: the last window ends at the border without a much larger overlap than others.
    starts = tuple(i * (length - window) // max(number - 1, 1) for i in range(number))
    # A Hann window half a pixel off its zeros: smooth, and least where a window sees no context.
    profile = np.sin(np.pi * (np.arange(window) + 0.5) / window) ** 2
    total = np.zeros(length)
    for start in starts:
        total[start : start + window] += profile
    weights = np.stack([profile / total[start : start + window] for start in starts])
    return Axis(starts, window, weights.astype(np.float32))
