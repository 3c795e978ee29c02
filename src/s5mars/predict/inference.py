"""The settings of inference: how images are cut into windows and what happens to each window.

Temperature and resolution belong to the model and travel with the ``LoadedModel``. Nothing here
imports torch, so that ``--help`` stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, get_args

from s5mars.errors import UserError, require_choice

if TYPE_CHECKING:
    import torch

InferencePrecision = Literal["fp32", "bf16"]
PRECISIONS: tuple[InferencePrecision, ...] = get_args(InferencePrecision)

SMALLEST_SIDE = 32
"""Models take any height and width from here on; smaller images are padded up to it."""

LARGEST_OVERLAP = 0.9
"""Above it the number of windows explodes (more than a hundred of them cover each pixel)."""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """Settings of inference.

    Args:
        window: side in pixels of the windows that larger images are cut into, at least 32; an image
            that fits into one window takes a single forward pass.
        overlap: smallest fraction of a window that overlaps its neighbour, in [0, 0.9].
        batch: number of windows in one forward pass.
        device: ``"cpu"``, ``"cuda"``, ..., or ``"auto"``: the accelerator if there is one.
            ``Predictor`` checks that the device exists.
        precision: ``"fp32"``, or ``"bf16"``: compute in bfloat16 where that is safe (autocast).
        tta: average the probabilities of each window and of its horizontal mirror image (test-time
            augmentation). This doubles the time.
        abstain: assign no class (255, ``IGNORE``) where the largest calibrated probability is below
            this threshold, in [0, 1]. None assigns a class to every pixel.

    Raises:
        UserError: if a setting is out of range or of another type.
    """

    window: int = 1024
    overlap: float = 0.25
    batch: int = 1
    device: str | torch.device = "cpu"
    precision: InferencePrecision = "fp32"
    tta: bool = False
    abstain: float | None = None

    def __post_init__(self) -> None:
        self._require("whole number", Integral, "window", "batch")
        self._require("number", Real, "overlap", "abstain")
        if not isinstance(self.tta, bool):
            raise UserError(f"tta must be True or False (got {self.tta!r})")
        if self.window < SMALLEST_SIDE:
            raise UserError(f"window must be at least {SMALLEST_SIDE} pixels (got {self.window})")
        if not 0 <= self.overlap <= LARGEST_OVERLAP:
            raise UserError(f"overlap must be in [0, {LARGEST_OVERLAP}] (got {self.overlap})")
        if self.batch < 1:
            raise UserError(f"batch must be at least 1 (got {self.batch})")
        require_choice(self.precision, PRECISIONS, name="precision")
        if self.abstain is not None and not 0 <= self.abstain <= 1:
            raise UserError(f"abstain must be in [0, 1] (got {self.abstain})")
        # Records hold them as JSON, which does not know numpy's numbers and tells 1 from 1.0.
        for kind, names in ((int, ("window", "batch")), (float, ("overlap", "abstain"))):
            for name in names:
                if (value := getattr(self, name)) is not None:
                    object.__setattr__(self, name, kind(value))

    def _require(self, kind: str, base: type, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            optional = name == "abstain" and value is None
            if not optional and (not isinstance(value, base) or isinstance(value, bool)):
                raise UserError(f"{name} must be a {kind} (got {value!r})")


def take_inference(settings: Mapping[str, Any]) -> tuple[Inference, dict[str, Any]]:
    """The settings of inference among others, and these others.

    Raises:
        UserError: if a setting of inference is out of range.
    """
    names = {field.name for field in fields(Inference)}
    others = {name: value for name, value in settings.items() if name not in names}
    return Inference(**{k: v for k, v in settings.items() if k in names}), others


DEFAULT = Inference()
AUTO_DEVICE = Inference(device="auto")
