"""The consistency cost of Mean Teacher, pixel by pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oracles.s5mars import Array, softmax


def consistency(
    student_logits: Array,
    teacher_logits: Array,
    known: NDArray[np.int64],
    valid: NDArray[np.bool_],
) -> float:
    """Mean over valid pixels of the squared error averaged over classes; 255 is "unknown"."""
    total, pixels = 0.0, 0
    batch, classes, height, width = student_logits.shape
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                if not valid[b, y, x]:
                    continue
                pixels += 1
                student = softmax(student_logits[b, :, y, x])
                teacher = softmax(teacher_logits[b, :, y, x])
                if known[b, y, x] != 255:
                    teacher = np.array([float(c == known[b, y, x]) for c in range(classes)])
                total += sum((s - t) ** 2 for s, t in zip(student, teacher, strict=True)) / classes
    return total / max(pixels, 1)
