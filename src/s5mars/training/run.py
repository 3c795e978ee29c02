"""A training run, from settings to a folder that can be evaluated, resumed and shared."""

from __future__ import annotations

import math
import sys
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from s5mars.classes import Taxonomy
from s5mars.config import TrainConfig
from s5mars.data.audit import readable, report_skipped
from s5mars.data.dataset import Dataset
from s5mars.data.layouts import open_dataset
from s5mars.data.partition import labelled_partition, pool, withhold
from s5mars.files import write_json, write_text
from s5mars.models.deeplab import DeepLabV3Plus
from s5mars.predict.predictor import Predictor
from s5mars.predict.predictor import Precision as InferencePrecision
from s5mars.proposals.prepare import object_store
from s5mars.proposals.store import ObjectStore
from s5mars.training.callbacks import ProgressBar, SaveLast, Validate
from s5mars.training.checkpoint import save_model
from s5mars.training.environment import choose_precision, versions
from s5mars.training.feed import Feed
from s5mars.training.module import SegmentationModule
from s5mars.training.validate import pseudo_label_record, validate
from s5mars.types import Method, Sample

VALIDATIONS = 20
"""In a run, where ``validate_every`` is 0."""


@dataclass(frozen=True)
class Streams:
    """The samples of a run."""

    labelled: tuple[Sample, ...]
    pool: tuple[Sample, ...] | None  # without the masks of images outside the partition
    selection: tuple[Sample, ...]  # what chooses the best checkpoint
    skipped: int = 0  # unreadable files that were left out

    def write(self, folder: Path) -> None:
        """Write the names, one list a stream, so that the run can be repeated exactly."""
        for name, samples in (
            ("labelled", self.labelled), ("pool", self.pool), ("selection", self.selection)
        ):  # fmt: skip
            if samples is not None:
                write_text(folder / f"{name}.txt", "".join(f"{s.name}\n" for s in samples))


def train(config: TrainConfig, method: Method, *, config_text: str) -> Path:
    """Train from the start.

    Args:
        config: the settings.
        method: what to minimise.
        config_text: the same, and the method's fields, as YAML for ``config.yaml``; a resumed run
            is read from it.

    Returns:
        The run folder.

    Raises:
        ValueError, FileNotFoundError: for settings or data that cannot work.
    """
    out = config.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        hint = (
            f"go on with it: `s5mars train --resume {out}`, or choose another --out"
            if (out / "config.yaml").is_file()
            else "choose another --out"
        )
        raise ValueError(f"{out} is not empty: {hint}")
    dataset = open_dataset(config.data)
    streams = _choose_streams(dataset, config, method)
    # Built before the folder exists: wrong names and files that do not fit leave nothing behind.
    module = _build_module(config, method, dataset.taxonomy, streams)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "config.yaml", config_text)
    write_json(out / "versions.json", versions())
    streams.write(out / "splits")
    print(module.student.weights_report, file=sys.stderr)
    return _fit(config, module, dataset, streams, checkpoint=None)


def resume(run: Path, config: TrainConfig, method: Method) -> Path:
    """Go on with a run from its ``last.ckpt``; the result is that of an unbroken run.

    Args:
        run: its folder.
        config: read from its ``config.yaml``.
        method: read from its ``config.yaml``.

    Raises:
        FileNotFoundError: if there is nothing to go on from.
        ValueError: if the data are no longer the same.
    """
    config = replace(config, out=run)
    checkpoint = run / "last.ckpt"
    dataset = open_dataset(config.data)
    streams = _recorded_streams(dataset, run, config, method)
    module = _build_module(replace(config, weights="none"), method, dataset.taxonomy, streams)
    if not checkpoint.is_file():
        print(f"{run} was stopped before its first save: starting again", file=sys.stderr)
        module = _build_module(config, method, dataset.taxonomy, streams)
        return _fit(config, module, dataset, streams, checkpoint=None)
    return _fit(config, module, dataset, streams, checkpoint=checkpoint)


def _fit(
    config: TrainConfig,
    module: SegmentationModule,
    dataset: Dataset,
    streams: Streams,
    *,
    checkpoint: Path | None,
) -> Path:
    _quieten_lightning()
    out = config.out
    objects = None
    if module.method.needs.objects:
        objects = object_store(config.objects, streams.labelled, cache=out / "objects")
    record = Record(config, dataset, streams, objects)
    every = config.validate_every or max(1, math.ceil(module.total_steps / VALIDATIONS))
    saver = SaveLast(out / "last.ckpt", every=config.save_every)
    precision = choose_precision(config.precision, config.accelerator)
    trainer = lightning.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=config.strategy,
        precision=precision,
        max_steps=module.total_steps,
        max_epochs=-1,
        gradient_clip_val=config.clip or None,
        callbacks=[
            Validate(lambda m: record.score(m, precision), every=every),
            saver,
            ProgressBar(),
        ],
        logger=_loggers(out),
        default_root_dir=out,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    if config.batch % trainer.world_size:
        raise ValueError(
            f"batch {config.batch} does not divide among {trainer.world_size} processes: "
            f"choose a multiple of {trainer.world_size}"
        )
    feed = Feed(
        config, streams.labelled, streams.pool, module.total_steps, dataset.coding, objects
    )
    record.start()
    trainer.fit(module, datamodule=feed, ckpt_path=checkpoint, weights_only=False)
    if module.global_step < module.total_steps:
        reason = saver.stopped_by or "an interrupt"
        print(
            f"stopped by {reason} after step {module.global_step} of {module.total_steps}, saved; "
            f"go on with: s5mars train --resume {out}",
            file=sys.stderr,
        )
    elif trainer.is_global_zero:
        if checkpoint is not None and not (out / "metrics.json").is_file():
            record.write(module)
        record.summarise(module)
    return out


class Record:
    """What a run leaves behind besides its weights: ``metrics.json`` and ``best.*``."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        streams: Streams,
        objects: ObjectStore | None,
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.streams = streams
        self.objects = objects
        self._since = time.monotonic()

    def start(self) -> None:
        """Start the clock."""
        self._since = time.monotonic()

    def score(self, module: SegmentationModule, precision: str) -> None:
        """Validate, note the record, and keep the weights when they are the best so far."""
        step = module.global_step
        averages = module.take_averages()
        network = module.scored
        training = network.training
        predictor = Predictor(
            network,
            self.dataset.taxonomy,
            device=module.device,
            precision=_inference_precision(precision),
        )
        everything, confident = validate(
            predictor,
            self.streams.selection,
            self.dataset.coding,
            rank=module.global_rank,
            world=module.trainer.world_size,
        )
        network.train(training)
        now = time.monotonic()
        module.seconds += now - self._since
        self._since = now
        scores = everything.to_dict(self.dataset.taxonomy)
        entry: dict[str, Any] = {
            "step": step,
            "loss": averages.get("loss"),
            "terms": _below(averages, "terms/"),
            "shares": _below(averages, "shares/"),
            "learning_rate": module.trainer.optimizers[0].param_groups[0]["lr"],
            "validation": scores,
            "pseudo_labels": pseudo_label_record(everything, confident, self.dataset.taxonomy),
        }
        module.history.append(entry)
        for logger in module.trainer.loggers:
            logger.log_metrics(_flat(entry), step=step)
        best = module.best_entry()
        if module.trainer.is_global_zero:
            if best is None or best["step"] == step:
                self._save_best(module, step, scores)
            self.write(module)

    def write(self, module: SegmentationModule) -> None:
        """Write ``metrics.json`` whole."""
        best = module.best_entry()
        write_json(
            self.config.out / "metrics.json",
            {
                **self._facts(module),
                "steps": module.global_step,
                "best": None
                if best is None
                else {"step": best["step"], **_headline(best["validation"])},
                "seconds": round(module.seconds, 1),
                "notes": self._notes(module),
                "history": module.history,
            },
        )

    def summarise(self, module: SegmentationModule) -> None:
        """Say how it ended."""
        best = module.best_entry()
        if best is None:
            return
        minutes = module.seconds / 60
        print(
            f"{self.config.method}: {module.scored_name} mIoU "
            f"{best['validation']['mIoU']:.2f} % on {self.config.select_on} at step {best['step']} "
            f"of {module.total_steps}, {minutes:.1f} min; {self.config.out}\n"
            f"next: s5mars evaluate {self.config.out} --data {self.config.data} --split test"
        )

    def _save_best(self, module: SegmentationModule, step: int, scores: dict[str, Any]) -> None:
        networks = {"student": module.student}
        if module.teacher is not None:
            networks["teacher"] = module.teacher
        save_model(
            self.config.out / "best.safetensors",
            networks,
            taxonomy=self.dataset.taxonomy,
            training={**self._facts(module), "step": step, "validation": _headline(scores)},
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
            "dataset": self.dataset.taxonomy.name,
            "layout": self.dataset.layout,
            "ignored_by": self.dataset.ignored_by,
            "labelled": config.labelled,
            "labelled_images": len(streams.labelled),
            "pool_images": 0 if streams.pool is None else len(streams.pool),
            "split_for_selection": config.select_on,
            "selection_images": len(streams.selection),
            "network": module.scored_name,
            "protocol": {"name": "full", "crop": None, "selected_on": config.select_on},
            "encoder_weights": str(module.student.weights_report),
            "objects": None if self.objects is None else self.objects.description,
        }

    def _notes(self, module: SegmentationModule) -> list[str]:
        notes = []
        if self.config.select_on == "test":
            notes.append(
                "The checkpoint was chosen on the test split: the score on it is too good."
            )
        if self.streams.skipped:
            notes.append(f"{self.streams.skipped} unreadable files were left out (--skip-bad).")
        if "synthetic" in self.dataset.taxonomy.name:
            notes.append("The images are synthetic: no score on them means anything about Mars.")
        return notes


def _choose_streams(dataset: Dataset, config: TrainConfig, method: Method) -> Streams:
    labelled = labelled_partition(
        dataset, config.labelled, seed=config.seed, skip_bad=config.skip_bad
    )
    streams = Streams(
        labelled=labelled,
        pool=withhold(pool(dataset), labelled) if method.needs.pool else None,
        selection=dataset.split(config.select_on),
    )
    if not config.skip_bad:
        return streams
    coding = dataset.coding
    labelled, bad = readable(streams.labelled, coding)
    candidates, bad_pool = readable(streams.pool or (), coding)
    selection, bad_selection = readable(streams.selection, coding)
    lines = dict.fromkeys(problem.message for problem in (*bad, *bad_pool, *bad_selection))
    report_skipped(lines)
    return Streams(
        labelled=labelled,
        pool=None if streams.pool is None else candidates,
        selection=selection,
        skipped=len(lines),
    )


def _recorded_streams(
    dataset: Dataset, run: Path, config: TrainConfig, method: Method
) -> Streams:
    def listed(name: str) -> list[Sample]:
        path = run / "splits" / f"{name}.txt"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: {run} is not a whole run folder")
        names = path.read_text(encoding="utf-8").splitlines()
        return [dataset.sample(n) for n in names]

    labelled = tuple(listed("labelled"))
    return Streams(
        labelled=labelled,
        pool=withhold(listed("pool"), labelled) if method.needs.pool else None,
        selection=tuple(listed("selection")),
    )


def _build_module(
    config: TrainConfig, method: Method, taxonomy: Taxonomy, streams: Streams
) -> SegmentationModule:
    if not streams.labelled:
        raise ValueError(f"no readable labelled image of {config.data} is left to train on")
    lightning.seed_everything(config.seed, verbose=False)  # initialises the new layers
    student = DeepLabV3Plus(
        config.model,
        len(taxonomy),
        output_stride=config.output_stride,
        head=config.head,
        weights=config.weights,
        normalisation=config.normalisation,
        multi_grid=config.multi_grid,
    ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = max(len(streams.labelled), len(streams.pool or ()))
    if config.steps is not None:
        steps = config.steps
    else:
        steps = max(1, math.ceil((config.epochs or 0) * images / config.batch))
    return SegmentationModule(student, method, config=config, total_steps=steps)


def _loggers(out: Path) -> list[Any]:
    logs = out / "logs"
    # A resumed run adds a table of its own: Lightning would empty the first one.
    version = len(list((logs / "csv").glob("part_*"))) if logs.is_dir() else 0
    return [
        TensorBoardLogger(str(logs), name="tensorboard", version=""),
        CSVLogger(str(logs), name="csv", version=f"part_{version}"),
    ]


def _quieten_lightning() -> None:
    import logging

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (".*does not have many workers.*", ".*LeafSpec.*", ".*val_dataloader.*",
                    ".*batch_size.*", ".*resuming from.*", ".*isn't resumable.*",
                    ".*Checkpoint directory.*", ".*weights_only.*"):  # fmt: skip
        warnings.filterwarnings("ignore", message=message)


def _inference_precision(precision: str) -> InferencePrecision:
    return "bf16" if precision.startswith("bf16") else "fp32"


def _below(values: dict[str, float], prefix: str) -> dict[str, float]:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


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
