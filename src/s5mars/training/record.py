"""Outputs of a run: scores, history, and the best weights."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.csv_logs import CSVLogger
from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from s5mars.data.dataset import Dataset, way_to_score
from s5mars.data.resolution import Resolution
from s5mars.errors import as_typed
from s5mars.files import write_json
from s5mars.files.run_folder import METRICS, TENSORS, run_to_resume
from s5mars.models.checkpoint import save_model
from s5mars.models.network import SegmentationNetwork
from s5mars.models.state_files import below_prefix
from s5mars.parallel import distributed
from s5mars.predict.predictor import Predictor
from s5mars.settings.config import Kept, TrainConfig
from s5mars.text.numbers import score
from s5mars.training.environment import choose_precision
from s5mars.training.feed import Feed
from s5mars.training.module import SegmentationModule
from s5mars.training.notes import Note, before_the_pool, run_notes
from s5mars.training.stages import Stage
from s5mars.training.streams import Streams, no_alignment
from s5mars.training.validate import pseudo_label_record, validate


@dataclass(eq=False)
class Record:
    """Write ``metrics.json`` and ``best.*``."""

    config: TrainConfig
    dataset: Dataset
    streams: Streams
    feed: Feed
    stages: Sequence[Stage] = ()  # that were trained before, for this one
    history: list[dict[str, Any]] = field(default_factory=list, init=False)
    seconds: float = field(default=0.0, init=False)  # of all parts of the run, with validation

    def __post_init__(self) -> None:
        self.loggers = _loggers(self.config.out)
        self.start_clock()

    def start_clock(self) -> None:
        """Count the time of training from now on."""
        self._since = time.monotonic()

    def score(
        self, module: SegmentationModule, *, between: Callable[[], None] = lambda: None
    ) -> bool:
        """Validate, append to the history, and save the weights if they are the best so far.

        ``between`` is called before each image; an error that it raises leaves all as it was.

        Returns:
            Whether the weights are the best so far; the same in all processes.
        """
        step = module.step
        precision = choose_precision(self.config.precision, self.config.accelerator)
        predictor = Predictor(
            module.scored,
            self.dataset.taxonomy,
            device=module.device,
            precision="bf16" if precision.startswith("bf16") else "fp32",
            resolution=Resolution.parse(self.config.resolution),
        )
        try:
            everything, confident = validate(
                predictor,
                self.streams.selection,
                self.dataset.coding,
                rank=distributed.rank(),
                world=distributed.number(),
                between=between,
            )
        finally:
            module.train()  # each part in its own mode: teacher and frozen statistics at rest
        averages = module.sums.take_averages()
        now = time.monotonic()
        self.seconds += now - self._since
        self._since = now
        scores = everything.to_dict(self.dataset.taxonomy)
        entry: dict[str, Any] = {
            "step": step,
            "loss": averages.get("loss"),
            "terms": below_prefix(averages, "terms/"),
            "shares": below_prefix(averages, "shares/"),
            "learning_rate": module.learning_rate,
            "validation": scores,
            "pseudo_labels": pseudo_label_record(everything, confident, self.dataset.taxonomy),
        }
        self.history.append(entry)
        for logger in self.loggers:
            logger.log_metrics(_flat(entry), step=step)
            logger.save()
        kept = self._kept(module)
        is_best = kept is not None and kept["step"] == step
        if distributed.rank() == 0:
            if is_best:
                self._save_best(module, step, scores)
            self.write(module)
        return is_best

    def state(self) -> dict[str, Any]:
        """State for a checkpoint."""
        running = time.monotonic() - self._since
        return {"history": self.history, "seconds": self.seconds + running}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned."""
        self.history, self.seconds = state["history"], state["seconds"]

    def close(self) -> None:
        """Close the log files and end the thread that writes TensorBoard's."""
        with suppress(OSError):  # on a full disk; another error tells of it
            for logger in self.loggers:
                logger.finalize("success")

    def write(self, module: SegmentationModule) -> None:
        """Write ``metrics.json``."""
        best = self._kept(module)
        write_json(
            self.config.out / METRICS,
            {
                **self._facts(module),
                "steps": module.step,
                "best": best and {"step": best["step"], **_headline(best["validation"])},
                "seconds": round(self.seconds + sum(s.seconds for s in self.stages), 1),
                "notes": [asdict(note) for note in self._notes(module)],
                "history": self.history,
            },
        )

    def summarise(self, module: SegmentationModule) -> None:
        """Print the final score and the next command."""
        best = self._kept(module)
        if best is None:
            return
        if note := before_the_pool(best["step"], self._facts(module)):
            print(note, file=sys.stderr)
        out, when = self.config.out, f"step {best['step']} of {module.total_steps}"
        when += f", {self.seconds / 60:.1f} min; {out}"
        if not self.streams.selection:
            way = way_to_score(len(self.streams.labelled))
            no_score = f"; no score, since no labelled image was set aside: {way}"
            print(
                f"{self.config.method}: the {module.scored_name} of {when}"
                f"{'' if self._tested else no_score}"
            )
        else:
            print(
                f"{self.config.method}: {module.scored_name} mIoU "
                f"{score(best['validation']['mIoU'])} % on {self.config.select_on} at {when}"
            )
        if run_to_resume(out) != out:
            return  # what comes next is said at the end of the whole
        print(f"next: {next_command(out, tested=self._tested)}")

    def _kept(self, module: SegmentationModule) -> dict[str, Any] | None:
        return kept_entry(self.history, keep=self.config.keep, pool_from=module.pool_from)

    @property
    def _tested(self) -> bool:
        """Whether there are images for ``s5mars evaluate``."""
        return bool(self.dataset.splits.get("test"))

    def _save_best(self, module: SegmentationModule, step: int, scores: dict[str, Any]) -> None:
        networks = {"student": module.student}
        if module.teacher is not None:
            networks["teacher"] = module.teacher
        facts = {**self._facts(module), "step": step, "validation": _headline(scores)}
        self._save(self.config.out / TENSORS, networks, facts)

    def save_snapshot(self, path: Path, module: SegmentationModule) -> None:
        """Write the scored network as it is now."""
        facts = {**self._facts(module), "step": module.step}
        self._save(path, {"student": module.scored}, facts)

    def _save(
        self, path: Path, networks: Mapping[str, SegmentationNetwork], training: dict[str, Any]
    ) -> None:
        save_model(
            path,
            networks,
            taxonomy=self.dataset.taxonomy,
            training=training,
            resolution=Resolution.parse(self.config.resolution),
        )

    def _facts(self, module: SegmentationModule) -> dict[str, Any]:
        config, streams = self.config, self.streams
        return {
            "method": config.method,
            "seed": config.seed,
            "total_steps": module.total_steps,
            "batch": config.batch,
            "crop": config.crop,
            "data": str(config.data),
            "splits": None if config.splits is None else str(config.splits),
            "dataset": self.dataset.taxonomy.name,
            "layout": self.dataset.layout,
            "ignored_by": self.dataset.ignored_by,
            "labelled": config.labelled,
            "train_images": len(self.dataset.split("train")),
            "labelled_images": len(streams.labelled),
            "partition_seed": config.partition_seed,
            "pool_images": 0 if streams.pool is None else len(streams.pool),
            "pool_from": module.pool_from,
            "pool": config.pool,
            "pool_crops": module.pool_crops + sum(s.pool_crops for s in self.stages),
            "stages": [asdict(stage) for stage in self.stages],
            "teacher": None if config.teacher is None else str(config.teacher),
            "resolution": config.resolution,
            "kept": config.keep,
            "split_for_selection": config.select_on if streams.selection else None,
            "selection_images": len(streams.selection),
            "test_images": len(self.dataset.splits.get("test", ())),
            "skipped_files": len(streams.skipped),
            "network": module.scored_name,
            "protocol": {
                "name": "full",
                "crop": None,
                "selected_on": config.select_on if streams.selection else None,
            },
            "encoder_weights": module.encoder_weights,
            "encoder_licence": module.encoder_licence,
            "objects": None if self.feed.objects is None else self.feed.objects.description,
        }

    def _notes(self, module: SegmentationModule) -> list[Note]:
        kept, coverage = self._kept(module), self.feed.coverage
        return run_notes(
            self._facts(module),
            kept=None if kept is None else kept["step"],
            tested=self._tested,
            alignment=no_alignment(self.config, self.streams),
            warnings=self.streams.warnings,
            objects="" if coverage is None else coverage.sentence,
        )


def next_command(run: Path, *, tested: bool) -> str:
    """The command that a user runs after training: on the test split, if there is one."""
    typed = as_typed(run)
    return f"s5mars evaluate {typed}" if tested else f"s5mars predict {typed} IMAGES --out maps"


def kept_entry(
    history: Sequence[dict[str, Any]], *, keep: Kept, pool_from: int
) -> dict[str, Any] | None:
    """The record whose weights are kept, see ``--keep``.

    By default the one with the highest validation mIoU so far; the first of equals. As long as none
    can be chosen, it is the last one.
    """
    scored = [e for e in history if e["validation"]["mIoU"] is not None]
    if keep == "after-warm-up":
        scored = [e for e in scored if e["step"] > pool_from]
    if keep == "last" or not scored:
        return history[-1] if history else None
    return max(scored, key=lambda e: e["validation"]["mIoU"])


def _loggers(out: Path) -> list[Logger]:
    logs = out / "logs"
    # A resumed run adds a new table: Lightning would empty the first one.
    version = len(list((logs / "csv").glob("part_*"))) if logs.is_dir() else 0
    return [
        TensorBoardLogger(logs, name="tensorboard", version=""),
        CSVLogger(logs, name="csv", version=f"part_{version}"),
    ]


def _headline(scores: dict[str, Any]) -> dict[str, Any]:
    return {key: scores[key] for key in ("mIoU", "mAcc", "pixel_accuracy")}


def _flat(entry: dict[str, Any]) -> dict[str, float]:
    flat = {"train/loss": entry["loss"], "learning_rate": entry["learning_rate"]}
    flat |= {f"train/{k}": v for k, v in entry["terms"].items()}
    flat |= {f"share/{k}": v for k, v in entry["shares"].items()}
    scores = entry["validation"]
    flat |= {f"validation/{k}": v for k, v in _headline(scores).items()}
    flat |= {f"validation/IoU/{name}": c["iou"] for name, c in scores["classes"].items()}
    return {k: float(v) for k, v in flat.items() if v is not None}
