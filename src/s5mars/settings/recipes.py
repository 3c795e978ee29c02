"""Named settings: the default, the paper's, and those of the released code.

A recipe changes defaults; the command line and YAML files override it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from s5mars.errors import UserError, nearest_first

if TYPE_CHECKING:
    from s5mars.methods.s5mars import S5Mars


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Defaults of the training settings, and a function that changes each method."""

    about: str
    training: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    training_of_methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def training_of(self, method: str) -> dict[str, Any]:
        """Defaults of the training settings for a method."""
        return {**self.training, **self.training_of_methods.get(method, {})}

    def method(self, name: str, default: Any) -> Any:
        """The method with this recipe's fields."""
        change = self.methods.get(name)
        return default if change is None else change(default)


def _released_s5mars(method: S5Mars) -> S5Mars:
    return replace(
        method,
        soft_weight=0.5,  # the soft term weighs 1.0 in all, not λ_u · λ_s = 2.0
        hard_threshold=-0.7,  # every pixel
        hard_over="all",
        soft_over="kept",
        swap="none",  # the main script never calls AugIN
        mix=replace(method.mix, rotation=0.0, rescale=(1.0, 1.0), extra_rectangle=True),
    )


def _s5mars_with_colours(method: S5Mars) -> S5Mars:
    # Exchanged statistics disturb grey images too little: docs/experiments.md.
    return replace(method, photometric="fixmatch")


_SHORT_RUNS: Mapping[str, Any] = {
    "optimiser": "adamw",
    "learning_rate": 5e-4,
    "weight_decay": 0.01,
    "balanced_crops": 0.5,
    "warm_up": 0.2,
    "ramp": 0.1,
    "unsupervised": 0.5,
    "alignment_coverage": 0.9,
    "teacher_span": 0.05,
    "class_biases": "fit",
}

_METHODS: Mapping[str, Callable[[Any], Any]] = {"s5mars": _s5mars_with_colours}

_TRAINED_TEACHER: Mapping[str, Mapping[str, Any]] = {"self_training": {"warm_up": 0.0, "ramp": 0.0}}
"""The network that labels the pool of this method is trained before, so no warm-up is needed."""

RECIPES: Mapping[str, Recipe] = {
    "default": Recipe(
        about="the papers' methods in runs of thousands of steps: AdamW, labelled crops that show "
        "rare classes, a short warm-up on labels alone, half of the unsupervised weight, "
        "a teacher average that fits the length of the run, class biases fitted on val; S5Mars "
        "gets the photometric augmentation of UniMatch",
        training=_SHORT_RUNS,
        methods=_METHODS,
        training_of_methods=_TRAINED_TEACHER,
    ),
    "paper": Recipe(
        about="the settings of the paper",
    ),
    "as_released": Recipe(
        about="the authors' run: OHEM, every pixel in the hard loss, soft weight 1.0, a rectangle "
        "after every paste, variances as divisor, checkpoint chosen on the test split",
        training={
            "model": "resnet50s",
            "deeplab.multi_grid": [1, 2, 4],
            "deeplab.normalisation": "as_released",
            "select_on": "test",
            "freeze_at": 200 / 240,
            "ohem": True,
        },
        methods={"s5mars": _released_s5mars},
    ),
    "vit": Recipe(
        about="released settings of UniMatch V2 for DINOv2 (Pascal VOC): ViT-S/14, "
        "AdamW with 5e-6 for the encoder and forty times as much for the decoder, crops of 518 "
        "pixels; the rest as in default",
        training={
            **_SHORT_RUNS,
            "model": "vit_small_patch14_dinov2",
            "learning_rate": 2e-4,
            "encoder_rate": 0.025,
            "crop": 518,
        },
        methods=_METHODS,
        training_of_methods=_TRAINED_TEACHER,
    ),
    "san": Recipe(
        about="settings of SAN's authors for its side adapter, with --model san: AdamW, rate 1e-4, "
        "gradient norm 0.01 (from memory, not checked; they use batch 32 and 60 000 steps)",
        training={
            "optimiser": "adamw",
            "learning_rate": 1e-4,
            "weight_decay": 1e-4,
            "clip": 0.01,
        },
    ),
}


def find_recipe(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        UserError: if the name is unknown; it lists all names, nearest first.
    """
    if name not in RECIPES:
        raise UserError(
            f"unknown recipe {name!r}; nearest first: {', '.join(nearest_first(name, RECIPES))}"
        )
    return RECIPES[name]
