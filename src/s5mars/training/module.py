"""The one training module: whatever the method, this is the step."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from s5mars import processes
from s5mars.alignment import AlignedTeacher, Alignment
from s5mars.config import TrainConfig
from s5mars.models.build import AnyNetwork
from s5mars.models.dropout import drawing
from s5mars.models.synchronised import synchronise
from s5mars.randomness import integer_seed
from s5mars.teacher import momentum_at, update_teacher
from s5mars.thresholds import ClassThresholds, above_threshold
from s5mars.training.schedule import momentum_limit, polynomial, ramp
from s5mars.types import Batch, Method, Progress


class SegmentationModule(lightning.LightningModule):
    """A student, its teacher where the method has one, and the sums that a record needs.

    Args:
        student: the network to train.
        method: what to minimise.
        config: optimiser, schedule, seed.
        total_steps: length of the run.
        areas: (C,) labelled pixels of each class; needed where crops are balanced, which do not
            show how frequent classes are.
    """

    def __init__(
        self,
        student: AnyNetwork,
        method: Method,
        *,
        config: TrainConfig,
        total_steps: int,
        areas: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.encoder_weights = str(student.weights_report)  # where the run started from
        self.teacher: AnyNetwork | None = None
        if method.needs.teacher:
            self.teacher = copy.deepcopy(student).requires_grad_(False).eval()
        self.alignment: Alignment | None = None
        if config.alignment and method.needs.pool:
            self.alignment = Alignment(
                self.classes, momentum=config.alignment, power=config.alignment_power
            )
        self.thresholds: ClassThresholds | None = None
        if config.thresholds != "fixed" and method.needs.pool:
            self.thresholds = ClassThresholds(
                self.classes, kind=config.thresholds, momentum=config.threshold_momentum
            )
        self.areas: Tensor | None
        self.register_buffer("areas", areas if config.balanced_crops else None, persistent=False)
        # A method with state is an nn.Module, and becomes a part of the checkpoint here.
        self.method = method
        self.config = config
        self.total_steps = total_steps
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0  # of training and validation, over all parts of the run
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._step = 0

    @property
    def scored_name(self) -> str:
        """Which network is scored: ``teacher`` where there is one (section V-B)."""
        return "student" if self.teacher is None else "teacher"

    @property
    def scored(self) -> AnyNetwork:
        """The network that is scored and shared."""
        return self.student if self.teacher is None else self.teacher

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(str(self.student.description["classes"]))

    def train(self, mode: bool = True) -> SegmentationModule:
        """The teacher labels in evaluation mode, always."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def setup(self, stage: str) -> None:
        """Several processes normalise by the statistics of their common batch."""
        if self.trainer.world_size > 1:
            synchronise(self.student, self.trainer.strategy.root_device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The weighted sum of the method's terms."""
        self._step = self.global_step
        size = len(batch.labelled.image)
        progress = Progress(
            seed=self.config.seed,
            step=self._step,
            total=self.total_steps,
            ramp=self.config.unsupervised
            * ramp(
                self._step,
                start=self.config.warm_up * self.total_steps,
                length=self.config.ramp * self.total_steps,
            ),
            keep=self.thresholds or above_threshold,
            first=self.global_rank * size,
        )
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), drawing(progress, size):
            # For layers of an encoder that draw by themselves: a function of the step, too.
            torch.manual_seed(
                integer_seed(progress.seed, "layers", step=self._step, sample=self.global_rank)
            )
            teacher: nn.Module = self.student if self.teacher is None else self.teacher
            if self.alignment is not None and progress.ramp:
                if self.areas is None:
                    self.alignment.observe_labels(batch.labelled.label)
                else:
                    self.alignment.observe_areas(self.areas)
                teacher = AlignedTeacher(teacher, self.alignment)
            terms = self.method.losses(self.student, teacher, batch, progress)
        loss = torch.stack([term.weight * term.value for term in terms.values()]).sum()
        self._add("loss", loss)
        for name, term in terms.items():
            self._add(f"terms/{name}", term.value)
            if term.share is not None:
                self._add(f"shares/{name}", term.share)
        self.log("loss", loss.detach(), prog_bar=True, logger=False, sync_dist=True)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step the student, then move the teacher, before anything can save a checkpoint."""
        super().optimizer_step(*args, **kwargs)
        if self.teacher is not None:
            limit = momentum_limit(
                self.total_steps,
                limit=self.config.teacher_momentum,
                span=self.config.teacher_span,
            )
            momentum = momentum_at(self._step, maximum=limit)
            update_teacher(self.teacher, self.student, momentum=momentum)

    def configure_optimizers(self) -> Any:
        """SGD with momentum (section V-B) or AdamW, and the polynomial schedule."""
        config = self.config
        trained = [p for p in self.student.parameters() if p.requires_grad]
        optimizer: torch.optim.Optimizer
        if config.optimiser == "adamw":
            optimizer = torch.optim.AdamW(
                trained, lr=config.learning_rate, weight_decay=config.weight_decay
            )
        else:
            optimizer = torch.optim.SGD(
                trained,
                lr=config.learning_rate,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
            )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: polynomial(
                step, total=self.total_steps, power=config.power, freeze_at=config.freeze_at
            ),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def best_entry(self) -> dict[str, Any] | None:
        """The record with the highest validation mIoU so far, the earlier one of equals."""
        scored = [e for e in self.history if e["validation"]["mIoU"] is not None]
        return max(scored, key=lambda e: e["validation"]["mIoU"], default=None)

    def take_averages(self) -> dict[str, float]:
        """Averages of loss, terms and shares since the last call, and start anew."""
        averages = {
            k: float(processes.total(v)) / processes.number() / self._counts[k]
            for k, v in self._sums.items()
        }
        self._sums, self._counts = {}, {}
        return averages

    def sums(self, *prefixes: str) -> Iterator[tuple[str, Tensor]]:
        """The sums since the last ``take_averages`` whose names begin so."""
        return ((name, x) for name, x in self._sums.items() if name.startswith(prefixes))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What a resumed run needs besides weights, so that its records are the same too."""
        checkpoint["s5mars"] = {
            "history": self.history,
            # By process: each goes on with its own.
            "sums": {k: processes.joined(v.unsqueeze(0)).cpu() for k, v in self._sums.items()},
            "counts": self._counts,
            "seconds": self.seconds,
            "encoder_weights": self.encoder_weights,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The counterpart of ``on_save_checkpoint``."""
        state = checkpoint["s5mars"]
        self.history = state["history"]
        self._sums = {k: self._own(v).to(self.device) for k, v in state["sums"].items()}
        self._counts = state["counts"]
        self.seconds = state["seconds"]
        self.encoder_weights = state.get("encoder_weights", self.encoder_weights)

    def _own(self, sums: Tensor) -> Tensor:
        """This process's part, or the mean where a run goes on with another number of them."""
        if sums.ndim and len(sums) == self.trainer.world_size:
            return sums[self.global_rank]
        return sums.mean()

    def _add(self, name: str, value: Tensor) -> None:
        value = value.detach().double() if value.device.type == "cpu" else value.detach()
        self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._counts[name] = self._counts.get(name, 0) + 1
