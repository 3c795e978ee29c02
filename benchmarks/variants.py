"""The steps that S5Mars is compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from s5mars.augment.photometric import Photometric
from s5mars.comparison.step import CostSettings, Step, random_batch
from s5mars.methods.fixmatch import FixMatch
from s5mars.types import Needs


@dataclass(frozen=True, kw_only=True)
class TeacherFixMatch(FixMatch):
    """FixMatch with pseudo-labels of a moving average, as in S5Mars."""

    @property
    def needs(self) -> Needs:
        """The method needs a pool and a teacher."""
        return Needs(pool=True, teacher=True)


def fixmatch_step(
    settings: CostSettings, device: torch.device, *, photometric: Photometric = "fixmatch"
) -> Step:
    """FixMatch with an EMA teacher."""
    step = Step("mean_teacher", settings, device)  # has the networks and streams that it needs
    step.module.method = TeacherFixMatch(photometric=photometric)
    return step


def supervised_step(settings: CostSettings, device: torch.device) -> Step:
    """A supervised step on the student batch of S5Mars, with labels for all images."""
    step = Step("supervised", settings, device)
    step.batch = random_batch(replace(settings, batch=2 * settings.batch), device, pool=False)
    return step
