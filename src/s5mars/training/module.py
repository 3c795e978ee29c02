"""The training module: one training step for every method."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from s5mars.methods.supervised import Supervised
from s5mars.models.dropout import drawing
from s5mars.models.licences import as_facts
from s5mars.models.network import SegmentationNetwork
from s5mars.models.tuning import layer_rates
from s5mars.objective.alignment import Alignment
from s5mars.objective.losses import cross_entropy, ohem_cross_entropy
from s5mars.objective.teacher import update_teacher
from s5mars.objective.thresholds import ClassThresholds, above_threshold
from s5mars.parallel import distributed
from s5mars.randomness import integer_seed
from s5mars.settings.config import TrainConfig, first_pool_step, reads_class_shares
from s5mars.training.schedule import polynomial, ramp, teacher_momentum
from s5mars.training.sums import RunningSums
from s5mars.types import Batch, Crops, Method, Progress, Targets, Term, as_predicted


class SegmentationModule(nn.Module):
    """A student, the teacher if the method has one, and running sums for the records.

    Args:
        areas: (C,) expected pixels of each class in an average crop of the labelled images, without
            balancing; alignment and class-wise thresholds need it.
        given_teacher: frozen network that labels the pool, for methods with
            ``needs.given_teacher``.
    """

    def __init__(
        self,
        student: SegmentationNetwork,
        method: Method,
        *,
        config: TrainConfig,
        total_steps: int,
        areas: Tensor | None = None,
        given_teacher: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.encoder_weights = str(student.weights_report)  # where the run started from
        self.encoder_licence = as_facts(student.licence)
        self.teacher: SegmentationNetwork | None = None
        if method.needs.teacher:
            self.teacher = copy.deepcopy(student).requires_grad_(False).eval()
        self.given_teacher = None if given_teacher is None else given_teacher.requires_grad_(False)
        self.alignment: Alignment | None = None
        self.thresholds: ClassThresholds | None = None
        if method.needs.pool and reads_class_shares(config):
            if areas is None:
                raise ValueError("alignment and thresholds need the areas of the labels")
            if config.alignment:
                self.alignment = Alignment(
                    areas, momentum=config.alignment, power=config.alignment_power
                )
            if config.thresholds != "fixed":
                self.thresholds = ClassThresholds(
                    areas, kind=config.thresholds, momentum=config.threshold_momentum
                )
        # A method with state is an nn.Module, and becomes a part of the checkpoint here.
        self.method = method
        self.config = config
        self.total_steps = total_steps
        self.pool_from = first_pool_step(config, total_steps) if method.needs.pool else 0
        self.sums = RunningSums()
        self.step = 0  # number of steps taken
        self._unused: tuple[nn.Parameter, ...] = ()  # in the last step
        self.optimizer, self.schedule = _optimiser(student, config, total_steps)
        self.train()

    @property
    def scored_name(self) -> str:
        """Which network is scored: ``teacher`` where there is one (section V-B)."""
        return "student" if self.teacher is None else "teacher"

    @property
    def scored(self) -> SegmentationNetwork:
        """The network that is scored and shared."""
        return self.student if self.teacher is None else self.teacher

    def train(self, mode: bool = True) -> SegmentationModule:
        """Set the mode; the teacher and frozen batch statistics stay in evaluation mode."""
        super().train(mode)
        if self.config.freeze_norm:
            for layer in nn.Module.modules(self.student.encoder):  # type: ignore[arg-type]
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        for network in (self.teacher, self.given_teacher):
            if network is not None:
                network.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return next(self.student.parameters()).device

    def forward(self, given: Callable[[], Batch]) -> Tensor:
        """The weighted sum of the method's terms.

        Args:
            given: returns the batch on the device; Fabric does not look into frozen dataclasses.
        """
        batch, rank = given(), distributed.rank()
        size = len(batch.labelled.image)
        progress = self.progress(self.step, first=rank * size)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), drawing(progress, size):
            # Layers that use the global generator depend on the step, too.
            torch.manual_seed(integer_seed(progress.seed, "layers", step=self.step, sample=rank))
            terms = self.objective(batch, progress)
        loss = torch.stack([term.weight * term.value for term in terms.values()]).sum()
        self.sums.add("loss", loss)
        for name, term in terms.items():
            self.sums.add(f"terms/{name}", term.value)
            if term.share is not None:
                self.sums.add(f"shares/{name}", term.share)
        return loss

    def progress(self, step: int, *, first: int = 0) -> Progress:
        """The progress at a step, counted from 0, and what the settings give to the method.

        ``first`` is the place of this process's first image in the batch of all processes.
        """
        config, total = self.config, self.total_steps
        grown = ramp(step, start=config.warm_up * total, length=config.ramp * total)
        return Progress(
            seed=config.seed,
            step=step,
            total=total,
            ramp=config.unsupervised * grown,
            first=first,
            pool_from=self.pool_from,
            criterion=ohem_cross_entropy if config.ohem else cross_entropy,
            pseudo_labels=self._pseudo_labels,
            keep=self.thresholds or above_threshold,
        )

    def objective(self, batch: Batch, progress: Progress) -> dict[str, Term]:
        """The terms of the method, or the supervised loss alone while the pool does not count."""
        student, needs = self.student, self.method.needs
        self._unused = ()
        if needs.pool and not progress.ramp:
            terms = Supervised().losses(student, student, batch, progress)
            return self._with_every_parameter(terms)
        teacher = self.given_teacher if needs.given_teacher else self.scored
        if teacher is None:
            raise ValueError("this method needs a network that labels the pool; none was given")
        return self.method.losses(student, teacher, batch, progress)

    def _with_every_parameter(self, terms: dict[str, Term]) -> dict[str, Term]:
        """Give a head that the warm-up does not use a zero gradient, which DDP waits for."""
        head = self.student.representation
        if head is None:
            return terms
        self._unused = tuple(head.parameters())
        nothing = 0 * torch.stack([parameter.sum() for parameter in self._unused]).sum()
        supervised = terms["supervised"]
        return {"supervised": replace(supervised, value=supervised.value + nothing)}

    def leave_out_unused(self) -> None:
        """Remove the zero gradients of a head that the step did not use.

        AdamW would count these steps, and take the head's second moments, which are still zero, for
        settled: the first steps that use the head would then be several times too large.
        """
        for parameter in self._unused:
            parameter.grad = None

    def _pseudo_labels(self, probability: Tensor, pool: Crops) -> Targets:
        if self.alignment is not None:
            probability = self.alignment(probability, pool.valid)
        return as_predicted(probability, pool)

    def finish_step(self) -> None:
        """Change the learning rate, update the teacher after the student, and count the step."""
        self.schedule.step()
        if self.teacher is not None:
            config = self.config
            momentum = teacher_momentum(
                self.step,
                total=self.total_steps,
                limit=config.teacher_momentum,
                span=config.teacher_span,
            )
            update_teacher(self.teacher, self.student, momentum=momentum)
        self.step += 1

    @property
    def learning_rate(self) -> float:
        """Learning rate of the head in the last step, or in the first one before any."""
        decay = _decay(max(self.step - 1, 0), self.config, self.total_steps)
        return self.config.learning_rate * decay

    @property
    def pool_crops(self) -> int:
        """How many crops of the pool the method sees in the whole run."""
        return self.config.batch * (self.total_steps - self.pool_from) * self.method.needs.pool

    def records(self) -> dict[str, Any]:
        """What a resumed run needs besides the states of modules; all processes call this."""
        return {
            **self.sums.state(),
            "encoder_weights": self.encoder_weights,
            "encoder_licence": self.encoder_licence,
        }

    def restore_records(self, state: dict[str, Any]) -> None:
        """Restore what ``records`` returned."""
        self.sums.restore(state, device=self.device)
        self.encoder_weights = state.get("encoder_weights", self.encoder_weights)
        self.encoder_licence = state.get("encoder_licence", self.encoder_licence)


def _optimiser(
    student: nn.Module, config: TrainConfig, total_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """SGD with momentum (section V-B) or AdamW, and the polynomial schedule."""
    rate = config.learning_rate
    of_encoder = layer_rates(student, config.encoder_rate, config.layer_decay)
    parts: dict[float, list[nn.Parameter]] = {}
    for parameter in student.parameters():
        if parameter.requires_grad:
            factor = of_encoder.get(parameter, 1.0)
            parts.setdefault(factor, []).append(parameter)
    trained = [{"params": part, "lr": rate * factor} for factor, part in parts.items()]
    optimizer: torch.optim.Optimizer
    if config.optimiser == "adamw":
        optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=config.weight_decay)
    else:
        optimizer = torch.optim.SGD(
            trained, lr=rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _decay(step, config, total_steps)
    )
    return optimizer, schedule


def _decay(step: int, config: TrainConfig, total_steps: int) -> float:
    return polynomial(step, total=total_steps, power=config.power, freeze_at=config.freeze_at)
