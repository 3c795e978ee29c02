"""The confusion matrix, from which every metric is derived.

Rows are the ground truth, columns the prediction, entries are counts of pixels. The matrices of
images, ranks and bootstrap draws are summed; scores are never averaged over images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from s5mars.classes import IGNORE, Taxonomy


class Confusion:
    """Counts of pixels by (true class, predicted class).

    A class absent from the ground truth has neither IoU nor accuracy (NaN) and is left out of the
    means; pixels wrongly predicted as that class still count against their true class.

    Example:
        >>> confusion = Confusion(2)
        >>> confusion.update(np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 0]]))
        >>> confusion.iou.tolist()
        [0.5, 0.5]
    """

    def __init__(self, classes: int, *, matrix: ArrayLike | None = None) -> None:
        """Start from zero, or from ``matrix``.

        Args:
            classes: number C of classes, 1..254.
            matrix: (C, C) counts, rows = ground truth; copied.

        Raises:
            ValueError: if ``classes`` is out of range, or ``matrix`` is not (C, C) or negative.
        """
        if not 1 <= classes < IGNORE:
            raise ValueError(f"classes must be in 1..{IGNORE - 1} (got {classes})")
        counts = np.zeros((classes, classes), np.int64) if matrix is None else np.array(matrix)
        if counts.shape != (classes, classes):
            raise ValueError(f"matrix must have shape {(classes, classes)} (got {counts.shape})")
        if counts.dtype.kind not in "iu" or (counts < 0).any():
            raise ValueError("matrix must contain non-negative integers")
        self.matrix: NDArray[np.int64] = counts.astype(np.int64)

    @property
    def classes(self) -> int:
        """Number C of classes."""
        return len(self.matrix)

    def update(self, truth: NDArray[np.integer], predicted: NDArray[np.integer]) -> None:
        """Count the pixels of one or more images.

        Args:
            truth: class indices, any shape; ``IGNORE`` is never counted.
            predicted: class indices, same shape; values where the truth is ``IGNORE`` have no
                effect.

        Raises:
            ValueError: if the shapes differ, or the value of a counted pixel is not a class index.
        """
        truth, predicted = np.asarray(truth), np.asarray(predicted)
        if truth.shape != predicted.shape:
            raise ValueError(f"shapes differ: truth {truth.shape}, prediction {predicted.shape}")
        for what, values in (("truth", truth), ("prediction", predicted)):
            if values.dtype.kind not in "iu":
                raise ValueError(f"{what} must contain integer class indices (got {values.dtype})")
        counted = truth != IGNORE
        rows, columns = truth[counted], predicted[counted]
        for what, values in (("truth", rows), ("prediction", columns)):
            if values.size and not 0 <= int(values.min()) <= int(values.max()) < self.classes:
                wrong = np.unique(values[(values < 0) | (values >= self.classes)]).tolist()
                raise ValueError(f"{what} contains {wrong}; classes are 0..{self.classes - 1}")
        # Of int64 and uint64, numpy makes float64.
        pairs = rows.astype(np.int64) * self.classes + columns.astype(np.int64)
        counts = np.bincount(pairs, minlength=self.classes**2)
        self.matrix += counts.reshape(self.classes, self.classes)

    def __add__(self, other: Confusion) -> Confusion:
        if not isinstance(other, Confusion):
            return NotImplemented
        if other.classes != self.classes:
            raise ValueError(f"cannot add matrices of {self.classes} and {other.classes} classes")
        return Confusion(self.classes, matrix=self.matrix + other.matrix)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Confusion):
            return NotImplemented
        return np.array_equal(self.matrix, other.matrix)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Confusion({self.classes}, matrix={self.matrix.tolist()})"

    def merged(self, groups: Sequence[Sequence[int]]) -> Confusion:
        """Merge each group of classes into one, for scores that ignore the border between them.

        A group, such as ``(6, 7)``, takes the place of its first member; other classes are kept.

        Raises:
            ValueError: if an index is not a class index, or is in two groups.
        """
        position = merged_positions(self.classes, groups)
        total = int(position.max()) + 1
        matrix = np.zeros((total, total), np.int64)
        np.add.at(matrix, (position[:, None], position[None, :]), self.matrix)
        return Confusion(total, matrix=matrix)

    @property
    def support(self) -> NDArray[np.int64]:
        """(C,) int64: number of pixels of each class in the ground truth."""
        total: NDArray[np.int64] = self.matrix.sum(axis=1)
        return total

    @property
    def iou(self) -> NDArray[np.float64]:
        """(C,) intersection over union in [0, 1]; NaN for absent classes."""
        return iou(self.matrix)

    @property
    def acc(self) -> NDArray[np.float64]:
        """(C,) recall of each class in [0, 1]; NaN for absent classes."""
        return accuracy(self.matrix)

    @property
    def mIoU(self) -> float:  # noqa: N802 - the field's name for it
        """Mean of ``iou`` over the classes present, in [0, 1]; NaN if there is none."""
        return float(mean_over_present(self.iou))

    @property
    def mAcc(self) -> float:  # noqa: N802 - the field's name for it
        """Mean of ``acc`` over the classes present, in [0, 1]; NaN if there is none."""
        return float(mean_over_present(self.acc))

    @property
    def pixel_accuracy(self) -> float:
        """Fraction of counted pixels that are right, in [0, 1]; NaN if none was counted."""
        return float(pixel_accuracy(self.matrix))

    def to_dict(self, taxonomy: Taxonomy) -> dict[str, object]:
        """The scores in percent, for JSON; ``None`` replaces NaN.

        Returns:
            ``{"mIoU", "mAcc", "pixel_accuracy", "classes": {name: {"iou", "acc", "support"}}}``;
            support is in pixels.

        Raises:
            ValueError: if the number of classes differs.
        """
        if len(taxonomy) != self.classes:
            raise ValueError(
                f"taxonomy {taxonomy.name!r} has {len(taxonomy)} classes, the matrix {self.classes}"
            )
        rows = zip(taxonomy.names, self.iou, self.acc, self.support, strict=True)
        return {
            "mIoU": percent(self.mIoU),
            "mAcc": percent(self.mAcc),
            "pixel_accuracy": percent(self.pixel_accuracy),
            "classes": {
                name: {"iou": percent(iou), "acc": percent(acc), "support": int(support)}
                for name, iou, acc, support in rows
            },
        }


def iou(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """(..., C, C) counts → (..., C) intersection over union; NaN for absent classes."""
    support = matrix.sum(axis=-1)
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    return _ratio(right, support + matrix.sum(axis=-2) - right, where=support > 0)


def accuracy(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """(..., C, C) counts → (..., C) recall of each class; NaN for absent classes."""
    support = matrix.sum(axis=-1)
    return _ratio(np.diagonal(matrix, axis1=-2, axis2=-1), support, where=support > 0)


def pixel_accuracy(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """(..., C, C) counts → (...) fraction of all counted pixels that are right; NaN if none."""
    total = matrix.sum(axis=(-2, -1))
    right = np.diagonal(matrix, axis1=-2, axis2=-1).sum(axis=-1)
    return _ratio(right, total, where=total > 0)


def mean_over_present(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., C) → (...): mean over the entries that are not NaN; NaN if all are."""
    present = ~np.isnan(scores)
    number = present.sum(axis=-1)
    return _ratio(np.where(present, scores, 0.0).sum(axis=-1), number, where=number > 0)


def percent(share: float) -> float | None:
    """A fraction in [0, 1] as percent for JSON; ``None`` for NaN, which JSON lacks."""
    return None if math.isnan(share) else 100.0 * float(share)


def merged_positions(classes: int, groups: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """(C,) int64: index of each class after merging; see ``Confusion.merged``."""
    leader = np.arange(classes)
    seen: set[int] = set()
    for group in groups:
        for index in group:
            if not 0 <= index < classes:
                raise ValueError(f"cannot merge class {index}: class indices are 0..{classes - 1}")
            if index in seen:
                raise ValueError(f"cannot merge class {index} twice")
            seen.add(index)
            leader[index] = min(group)
    position: NDArray[np.int64] = np.unique(leader, return_inverse=True)[1].astype(np.int64)
    return position


def merged_taxonomy(taxonomy: Taxonomy, groups: Sequence[Sequence[int]]) -> Taxonomy:
    """The taxonomy of ``Confusion.merged``: names joined by ``+``, colour of the first class."""
    position = merged_positions(len(taxonomy), groups)
    merged = (np.flatnonzero(position == new).tolist() for new in range(position.max() + 1))
    return Taxonomy(taxonomy.name, tuple(map(taxonomy.joined, merged)))


def _ratio(
    above: NDArray[np.generic], below: NDArray[np.generic], *, where: NDArray[np.bool_]
) -> NDArray[np.float64]:
    result = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=result, where=where)
    return result
