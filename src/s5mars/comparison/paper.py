"""The paper's numbers, which are kept separate from everything measured here.

Zhang et al., "S5Mars: Semi-Supervised Learning for Mars Semantic Segmentation", IEEE TGRS 2024:
tables III (S5Mars data), IV (AI4Mars), V (per class) and XIII (cost). ResNet-50, batch 8, 240
epochs, crop 512, one RTX 3090.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s5mars.settings.ablations import ABLATIONS

Scores = tuple[float, float]  # mAcc, mIoU, in percent


@dataclass(frozen=True)
class PaperTable:
    """The part of a table of the paper that matches one of ours."""

    name: str
    data: str
    header: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]


TABLE_III: Mapping[str, Mapping[str, Scores]] = {
    "0.2": {
        "Supervised": (76.71, 66.26), "MT": (76.89, 70.92), "MT + ClassMix": (77.38, 71.54),
        "FixMatch": (77.80, 71.08), "RanPaste": (76.36, 66.66), "U²PL": (78.03, 72.32),
        "AugSeg": (78.28, 72.38), "UniMatch": (76.92, 69.83), "S5Mars": (82.85, 76.49),
    },
    "0.5": {
        "Supervised": (80.17, 72.65), "MT": (81.95, 75.93), "MT + ClassMix": (82.34, 76.42),
        "FixMatch": (79.47, 72.98), "RanPaste": (80.51, 74.08), "U²PL": (82.29, 77.56),
        "AugSeg": (81.52, 75.40), "UniMatch": (78.53, 71.56), "S5Mars": (83.56, 78.66),
    },
    "1": {
        "Supervised": (82.12, 75.04), "MT": (82.32, 77.87), "MT + ClassMix": (83.21, 78.04),
        "FixMatch": (80.75, 73.69), "RanPaste": (82.28, 75.78), "U²PL": (83.41, 78.60),
        "AugSeg": (81.82, 76.90), "UniMatch": (79.82, 72.60), "S5Mars": (84.73, 80.15),
    },
}  # fmt: skip
"""Share → method → (mAcc, mIoU)."""

TABLE_IV: Mapping[str, Mapping[str, Scores]] = {
    "0.2": {
        "Supervised": (71.68, 66.14), "MT": (75.44, 70.13), "MT + ClassMix": (76.86, 70.49),
        "FixMatch": (76.27, 70.36), "RanPaste": (75.16, 70.37), "U²PL": (77.11, 70.89),
        "AugSeg": (76.88, 70.15), "UniMatch": (75.60, 70.24), "S5Mars": (77.60, 71.79),
    },
    "1": {
        "Supervised": (74.43, 68.34), "MT": (77.82, 71.98), "MT + ClassMix": (78.56, 72.67),
        "FixMatch": (77.37, 71.90), "RanPaste": (77.39, 70.59), "U²PL": (78.62, 72.41),
        "AugSeg": (77.45, 72.34), "UniMatch": (77.21, 71.36), "S5Mars": (80.33, 74.68),
    },
}  # fmt: skip
"""Share → method → (mAcc, mIoU)."""

TABLE_V_HEADER = (
    "sky", "ridge", "soil", "sand", "bedrock", "rock", "rover", "trace", "hole", "mIoU"
)  # fmt: skip
TABLE_V: Mapping[str, tuple[float, ...]] = {
    "FixMatch": (88.97, 90.06, 83.05, 74.19, 92.09, 20.31, 52.54, 88.75, 73.26, 73.69),
    "U²PL": (94.86, 93.25, 85.80, 81.02, 92.18, 23.55, 93.77, 78.06, 64.96, 78.60),
    "AugSeg": (94.75, 93.00, 84.78, 77.36, 92.02, 10.33, 83.08, 81.00, 75.84, 76.90),
    "S5Mars": (95.64, 94.20, 87.18, 83.18, 92.42, 22.89, 87.17, 85.60, 74.10, 80.15),
}
"""IoU by class, all labels."""

TABLE_XIII: Mapping[str, tuple[float, float]] = {
    "U²PL": (98.7, 196.15),
    "FixMatch": (34.3, 40.47),
    "AugSeg": (35.9, 80.94),
    "S5Mars": (42.8, 80.94),
}
"""Method → (hours of training on one RTX 3090, millions of parameters)."""

_LAYOUTS_OF_S5MARS = {"s5mars", "mars-bench"}


def paper_scores(data: Mapping[str, Any], share: str) -> PaperTable | None:
    """Return the paper's scores on this data set and share; None if there are none.

    Args:
        data: result of ``settings.describe_data``.
    """
    header = ("mAcc", "mIoU")
    if _is_s5mars(data) and share in TABLE_III:
        return PaperTable("table III", "S5Mars", header, TABLE_III[share])
    if data.get("layout") == "ai4mars" and share in TABLE_IV:
        return PaperTable("table IV", "AI4Mars", header, TABLE_IV[share])
    return None


def paper_classes(data: Mapping[str, Any], share: str) -> PaperTable | None:
    """Return the paper's scores by class, which exist for the S5Mars data with all labels."""
    if _is_s5mars(data) and share == "1":
        return PaperTable("table V", "S5Mars", TABLE_V_HEADER, TABLE_V)
    return None


def paper_ablation(data: Mapping[str, Any], share: str, name: str) -> PaperTable | None:
    """Return the paper's scores of an ablation (S5Mars data with all labels only)."""
    if not _is_s5mars(data) or share != "1" or name not in ABLATIONS:
        return None
    rows = {row: paper for row, each in ABLATIONS[name].rows.items() if (paper := each.paper)}
    source = ABLATIONS[name].source
    return PaperTable(source, "S5Mars", ("mAcc", "mIoU"), rows) if rows else None


def _is_s5mars(data: Mapping[str, Any]) -> bool:
    """Return whether the data are the S5Mars release or a copy of it, with its nine classes."""
    return data.get("layout") in _LAYOUTS_OF_S5MARS and data.get("taxonomy") == "s5mars"
