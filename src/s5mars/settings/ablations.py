"""The paper's ablations by name: each row is a change of a few fields of S5Mars.

``find_ablation("augin/efdm")`` gives one row, ``s5mars train --ablation augin/efdm`` trains it. A
row overrides the recipe; the command line and YAML files override the row. Scores are the paper's,
on its data with all labels. Rows of tables IX, XI, XII and of the figures have none, because they
are not readable in the available copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from s5mars.errors import UserError, nearest_first

if TYPE_CHECKING:
    from s5mars.methods.s5mars import S5Mars


ABLATED = "s5mars"
"""Name of the method that the rows change."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table."""

    change: Callable[[S5Mars], S5Mars]
    paper: tuple[float, float] | None = None  # mAcc and mIoU in percent; None if not readable
    training: Mapping[str, Any] = field(default_factory=dict)  # settings that the row needs


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One table or figure."""

    about: str
    source: str
    rows: Mapping[str, Row]


def find_ablation(name: str) -> Row:
    """The row of a name such as ``augin/efdm``.

    Raises:
        UserError: if the name is unknown; it lists all names, nearest first.
    """
    rows = {
        f"{ablation}/{row}": content
        for ablation, table in ABLATIONS.items()
        for row, content in table.rows.items()
    }
    if name not in rows:
        raise UserError(
            f"unknown ablation {name!r}; nearest first: {', '.join(nearest_first(name, rows))}"
        )
    return rows[name]


def _fields(**values: Any) -> Callable[[S5Mars], S5Mars]:
    return lambda method: replace(method, **values)


def _paste(**values: Any) -> Callable[[S5Mars], S5Mars]:
    return lambda method: replace(method, mix=replace(method.mix, **values))


def _transforms(*names: str) -> Callable[[S5Mars], S5Mars]:
    def change(method: S5Mars) -> S5Mars:
        from s5mars.augment.sam_mix import SamMix

        off: dict[str, Any] = {"rotation": 0.0, "flip": 0.0, "rescale": (1.0, 1.0)}
        on = {name: getattr(SamMix(), name) for name in names}
        return replace(method, mix=replace(method.mix, **(off | on)))

    return change


def _single_augmentation(*, source: str = "none", **values: Any) -> Callable[[S5Mars], S5Mars]:
    settings: dict[str, Any] = {"swap": "none", "photometric": "none"} | values
    paste = _paste(source=source, extra_rectangle=False)
    return lambda method: paste(replace(method, **settings))


def _values(name: str, *values: float, **training: Any) -> dict[str, Row]:
    return {f"{v:g}": Row(change=_fields(**{name: v}), training=training) for v in values}


WHOLE = (84.73, 80.15)
"""mAcc and mIoU of the whole method, which is the last row of several tables."""

ABLATIONS: Mapping[str, Ablation] = {
    "strong": Ablation(
        about="S5Mars with a single strong augmentation. Dropout acts on pixels here; in the "
        "paper it acts on features",
        source="figure 5",
        rows={
            "identity": Row(change=_single_augmentation()),
            "gaussian_noise": Row(change=_single_augmentation(photometric="gaussian_noise")),
            "cutout": Row(change=_single_augmentation(photometric="cutout")),
            "gaussian_blur": Row(change=_single_augmentation(photometric="gaussian_blur")),
            "hue": Row(change=_single_augmentation(photometric="hue")),
            "contrast": Row(change=_single_augmentation(photometric="contrast")),
            "equalize": Row(change=_single_augmentation(photometric="equalize")),
            "brightness": Row(change=_single_augmentation(photometric="brightness")),
            "cutmix": Row(change=_single_augmentation(source="rectangles")),
            "dropout": Row(change=_single_augmentation(photometric="dropout")),
            "augin": Row(change=_single_augmentation(swap="std")),
            "sam_mix": Row(change=_single_augmentation(source="objects")),
        },
    ),
    "augin": Ablation(
        about="what images exchange: nothing, the statistics of other methods, or those of AugIN",
        source="table VII",
        rows={
            "identity": Row(change=_fields(swap="none"), paper=(84.20, 79.59)),
            "efdm": Row(change=_fields(swap="efdm"), paper=(83.97, 78.78)),
            "wct": Row(change=_fields(swap="wct"), paper=(83.38, 78.83)),
            "fda": Row(change=_fields(swap="fda"), paper=(84.20, 78.70)),
            "mean": Row(change=_fields(swap="mean"), paper=(83.64, 78.88)),
            "std": Row(change=_fields(swap="std"), paper=WHOLE),
            "both": Row(change=_fields(swap="both"), paper=(83.58, 78.69)),
        },
    ),
    "mixing": Ablation(
        about="what is pasted: nothing, rectangles, predicted classes, true classes, or objects",
        source="table VIII",
        rows={
            "identity": Row(
                change=_paste(source="none", extra_rectangle=False), paper=(83.33, 78.56)
            ),
            "cutmix": Row(change=_paste(source="rectangles"), paper=(83.85, 78.98)),
            "classmix": Row(change=_paste(source="classmix"), paper=(83.81, 78.89)),
            "dacs": Row(change=_paste(source="dacs"), paper=(83.80, 78.69)),
            "sam_mix": Row(change=_paste(source="objects"), paper=WHOLE),
        },
    ),
    "objects": Ablation(
        about="how an object is transformed before it is pasted; the ranges are not the paper's",
        source="table IX",
        rows={
            "none": Row(change=_transforms()),
            "rotation": Row(change=_transforms("rotation")),
            "flip": Row(change=_transforms("flip")),
            "rescaling": Row(change=_transforms("rescale")),
            "all": Row(change=_transforms("rotation", "flip", "rescale")),
        },
    ),
    "labels": Ablation(
        about="which pseudo-labels are used; the thresholds do not change, so soft labels alone "
        "do not cover the most confident pixels",
        source="table X",
        rows={
            "soft": Row(change=_fields(hard_weight=0.0), paper=(83.36, 78.12)),
            "hard": Row(change=_fields(soft_weight=0.0), paper=(84.28, 79.70)),
            "both": Row(change=_fields(), paper=WHOLE),
        },
    ),
    "hard_threshold": Ablation(
        about="t_hard, above which a pixel gets a hard label; the paper's text names 0.7, the "
        "other values are this project's. FreeMatch would replace it, so thresholds are fixed",
        source="table XI",
        rows=_values("hard_threshold", 0.0, 0.5, 0.7, 0.8, 0.9, 0.95, thresholds="fixed"),
    ),
    "soft_threshold": Ablation(
        about="t_soft, below which a pixel gets a soft label; the paper's text names no value, "
        "0.9 is the released code's, the others are this project's; 1 means every pixel that has "
        "no true label and is not certain (a confidence of 1 in single precision)",
        source="table XII",
        rows=_values("soft_threshold", 0.5, 0.7, 0.8, 0.9, 0.95, 1.0),
    ),
    "soft_weight": Ablation(
        about="λ_s, the weight of the soft loss; the paper's text names 1, the others are "
        "this project's",
        source="figure 9 b",
        rows=_values("soft_weight", 0.0, 0.25, 0.5, 1.0, 2.0, 4.0),
    ),
    "soft_labels": Ablation(
        about="how fast the method learns with and without soft labels",
        source="figure 9 a",
        rows={
            "with": Row(change=_fields()),
            "without": Row(change=_fields(soft_weight=0.0)),
        },
    ),
}
