"""One step of the training module for a method, on random tensors."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from s5mars.classes import IGNORE
from s5mars.errors import UserError
from s5mars.methods import method_class
from s5mars.models.build import build_segmenter
from s5mars.settings.config import Head, TrainConfig
from s5mars.training.module import SegmentationModule
from s5mars.types import Batch, Crops

_NOWHERE = Path("nowhere")  # no data is read and nothing is written
_LABELLED = 0.5  # share of the pixels of the labelled stream, as in S5Mars (48.9 %)
_TOTAL = 1000


@dataclass(frozen=True, kw_only=True)
class CostSettings:
    """Sizes of a step, and number of rounds to measure it."""

    model: str = "resnet50"
    head: Head = "auto"
    crop: int = 512
    batch: int = 8
    classes: int = 9
    rounds: int = 3
    device: str = "auto"

    def __post_init__(self) -> None:
        # Batch normalisation and mixing need two images, see ``check_devices`` of the training.
        for name, least in (("crop", 32), ("batch", 2), ("classes", 2), ("rounds", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} must be at least {least} (got {getattr(self, name)})")


class Step:
    """The training module and a batch of the method of this name."""

    def __init__(self, name: str, settings: CostSettings, device: torch.device) -> None:
        method = method_class(name)()
        config = TrainConfig(
            data=_NOWHERE,
            out=_NOWHERE,
            method=name,
            steps=_TOTAL,
            batch=settings.batch,
            crop=settings.crop,
            model=settings.model,
            weights="none",
        )
        student = build_segmenter(
            settings.model,
            settings.classes,
            head=settings.head,
            representation=method.needs.representation,
        ).to(memory_format=torch.channels_last)
        module = SegmentationModule(
            student,
            method,
            config=config,
            total_steps=_TOTAL,
            given_teacher=copy.deepcopy(student) if method.needs.given_teacher else None,
        )
        self.module = module.to(device).train()
        self.optimizer = module.optimizer
        self.batch = random_batch(settings, device, pool=method.needs.pool)
        self.device = device

    def __call__(self) -> None:
        """Take a step (forward, backward, optimiser, teacher) and wait for the device."""
        self.learn(self.loss())
        self.wait()

    def loss(self) -> torch.Tensor:
        """Return the loss of the next step."""
        loss: torch.Tensor = self.module(lambda: self.batch)
        return loss

    def learn(self, loss: torch.Tensor) -> None:
        """Compute the gradients of a loss, and update student and teacher, as in ``Loop.run``."""
        loss.backward()  # type: ignore[no-untyped-call]
        self.module.leave_out_unused()
        self.clip()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.module.finish_step()

    def clip(self) -> None:
        """Clip the gradients."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self.module.config.clip)

    def wait(self) -> None:
        """Wait until the device has finished."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    @property
    def trained(self) -> int:
        """Number of parameters that the optimiser updates."""
        return sum(p.numel() for group in self.optimizer.param_groups for p in group["params"])

    @property
    def held(self) -> int:
        """Number of parameters of student and teacher."""
        return sum(parameter.numel() for parameter in self.module.parameters())


def random_batch(settings: CostSettings, device: torch.device, *, pool: bool) -> Batch:
    """Make a batch of noise with labels on half of the labelled pixels and a centred object."""
    generator = torch.Generator().manual_seed(0)
    shape = (settings.batch, settings.crop, settings.crop)

    def stream(labelled: float) -> Crops:
        image = torch.randint(0, 256, (shape[0], 3, *shape[1:]), generator=generator)
        label = torch.randint(0, settings.classes, shape, generator=generator)
        label[torch.rand(shape, generator=generator) >= labelled] = IGNORE
        objects = torch.zeros(shape, dtype=torch.bool)
        edge = settings.crop // 4
        objects[:, edge:-edge, edge:-edge] = True
        return Crops(
            image=image.to(device, torch.uint8),
            label=label.to(device, torch.uint8),
            valid=torch.ones(shape, dtype=torch.bool, device=device),
            objects=objects.to(device) if labelled else None,
        )

    return Batch(labelled=stream(_LABELLED), pool=stream(0.0) if pool else None)
