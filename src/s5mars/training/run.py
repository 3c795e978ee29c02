"""A training run: from settings to a run folder."""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from lightning_fabric import seed_everything
from lightning_fabric.utilities import rank_zero_only

from s5mars.classes import Taxonomy
from s5mars.data.dataset import Dataset
from s5mars.data.layouts import open_dataset
from s5mars.data.resolution import Resolution
from s5mars.data.trained_on import dataset_of
from s5mars.errors import UserError, as_typed
from s5mars.files import write_json, write_text
from s5mars.files.locking import is_empty, locked
from s5mars.files.reading import read_object, read_text
from s5mars.files.run_folder import (
    CHECKPOINT,
    CONFIG,
    METRICS,
    VERSIONS,
    is_finished,
    run_to_resume,
)
from s5mars.models.network import SegmentationNetwork
from s5mars.models.start import starting_network
from s5mars.proposals.prepare import check_given, checked_objects
from s5mars.settings.config import ROUNDING, TrainConfig
from s5mars.settings.parsing import with_changes, with_values
from s5mars.settings.paths import with_absolute_paths
from s5mars.training.announce import plan
from s5mars.training.class_biases import add_class_biases, lacks_class_biases
from s5mars.training.domain import has_domain, record_domain
from s5mars.training.environment import check_devices, processes, versions
from s5mars.training.failures import explained, readable
from s5mars.training.feed import Feed, objects_of
from s5mars.training.loop import Loop, read_checkpoint
from s5mars.training.module import SegmentationModule
from s5mars.training.notes import few_pool_crops
from s5mars.training.record import Record, next_command
from s5mars.training.signals import Ended
from s5mars.training.stages import (
    earlier_stages,
    given_teacher,
    stages_of,
    steps_of_last,
    trains_in_stages,
)
from s5mars.training.streams import (
    Streams,
    choose_streams,
    recorded_streams,
    selection_of,
    with_usable_alignment,
)
from s5mars.types import Method

logger = logging.getLogger("s5mars")


def train(
    config: TrainConfig,
    method: Method,
    *,
    config_text: str,
    chosen: str = "",
) -> Ended:
    """Train a new run.

    Args:
        config_text: settings and method as YAML for ``config.yaml``, from which a resumed run
            reads them.
        chosen: which of them were chosen and why, for the user.

    Raises:
        UserError, MissingFileError: if settings or data are wrong.
    """
    out = config.out
    # Only the first process of a distributed run checks and makes the folder.
    first = _is_first()
    if first:
        require_unused(out)
    quieten_lightning()
    check_devices(config)
    _check_teacher(config, method)
    objects = config.objects if method.needs.objects else None
    if objects is not None:
        check_given(objects)
    dataset = open_dataset(config.data, splits=config.splits)
    config, config_text = settled(config, config_text, dataset)
    streams = choose_streams(dataset, config, method)
    with ExitStack() as stack:
        # Made before the folder exists, so that an error leaves nothing behind.
        keep = stack.enter_context(checked_objects(objects, streams.labelled, imports=first))
        module = _build_module(config, method, dataset.taxonomy, streams)
        stack.enter_context(_owned(out))
        if first:
            require_unused(out)  # another run may have begun in the meantime
            write_text(out / CONFIG, config_text)
            write_json(out / VERSIONS, versions())
            streams.write(out / "splits")
            keep(objects_of(config))
            text = plan(config, module, dataset, streams)
            print(*filter(None, (chosen, text)), sep="\n", file=sys.stderr)
            for line in filter(None, (*streams.warnings, few_pool_crops(module.pool_crops))):
                logger.warning("%s", line)
        return _fit(config, module, dataset, streams, checkpoint=None)


def settled(config: TrainConfig, text: str, dataset: Dataset) -> tuple[TrainConfig, str]:
    """Settings for ``config.yaml``: paths for any directory, and what follows from the data."""
    new = with_absolute_paths(config)
    if new.keep == "best" and not selection_of(dataset, new):
        new = replace(new, keep="last")
    return new, with_changes(text, config, new)


def _check_teacher(config: TrainConfig, method: Method) -> None:
    """Check that the method uses the teacher, and that stages run in one process."""
    if config.teacher is not None and not method.needs.given_teacher:
        raise UserError(
            f"--teacher is for --method self_training, not {config.method}: leave it out"
        )
    if trains_in_stages(config, method) and processes(config) > 1:
        raise UserError(
            f"{config.method} trains its stages in one process: use --devices 1, or give --teacher"
        )


def resume(
    run: Path,
    config: TrainConfig,
    method: Method,
    *,
    data: Path | None = None,
    skip_bad: bool = False,
) -> Ended:
    """Resume a run from its ``last.ckpt``; the result equals that of an uninterrupted run.

    A finished run is left as it is, apart from a missing record of its training images and missing
    class biases. Settings and method are those of its ``config.yaml``, which then names ``data``,
    if the data was moved, and has ``skip_bad``, if damaged images of the pool are to be left out.

    Raises:
        MissingFileError: if the run or its data are missing.
        UserError: if the data have changed, or if another process works on the run.
    """
    quieten_lightning()
    config = resumed_settings(config, run, data=data, skip_bad=skip_bad)
    if is_finished(run):
        if not _is_first():
            return Ended(run)
        _complete_finished(run, config, method)
        # Runs of earlier versions do not record the number of test images.
        tested = read_object(run / METRICS).get("test_images") != 0
        print(f"{run} is finished; next: {next_command(run, tested=tested)}")
        return Ended(run)
    with _owned(run):
        if _is_first():
            record_resumed(config, run, data=data, skip_bad=skip_bad)
        return _go_on(run, config, method)


def resumed_settings(
    config: TrainConfig, run: Path, *, data: Path | None, skip_bad: bool
) -> TrainConfig:
    """The settings of a run that may have been moved to ``run``, and its data to ``data``."""
    config = replace(config, out=run, skip_bad=config.skip_bad or skip_bad)
    return config if data is None else with_absolute_paths(replace(config, data=data))


def record_resumed(config: TrainConfig, run: Path, *, data: Path | None, skip_bad: bool) -> None:
    """Write what ``resumed_settings`` has changed to ``config.yaml``, for the next time."""
    changed = [name for name, new in (("data", data), ("skip_bad", skip_bad)) if new]
    if changed:
        path = run / CONFIG
        write_text(path, with_values(read_text(path), config, changed))


def _go_on(run: Path, config: TrainConfig, method: Method) -> Ended:
    checkpoint = run / CHECKPOINT
    saved = os.path.lexists(checkpoint)
    if saved:
        read_checkpoint(checkpoint)  # before anything else of the run is touched
    check_devices(config)
    dataset = dataset_of(run, {"data": config.data, "splits": config.splits})
    streams = recorded_streams(dataset, run, config, method)
    if not saved:
        if _is_first() and not trains_in_stages(config, method):
            print(
                f"{run} was stopped before its first save; training starts again", file=sys.stderr
            )
        module = _build_module(config, method, dataset.taxonomy, streams)
        return _fit(config, module, dataset, streams, checkpoint=None)
    # Where the network needs weights, they define its architecture.
    weights = config.weights if config.network.weights else "none"
    module = _build_module(
        # Its weights and their licence come from the checkpoint.
        replace(config, weights=weights, start_from="", accept_licence=""),
        method,
        dataset.taxonomy,
        streams,
    )
    return _fit(config, module, dataset, streams, checkpoint=checkpoint)


def train_part(config: TrainConfig, method: Method, *, config_text: str, title: str) -> Ended:
    """Train or resume a fold or a stage; a finished one gets only what it lacks.

    Args:
        title: printed before, such as "runs/a: fold 1 of 3".
    """
    out = config.out
    if is_finished(out):
        _complete_finished(out, config, method)
    else:
        print(title, file=sys.stderr)
        if (out / CHECKPOINT).is_file():
            return resume(out, config, method)
        # Stopped before its first save: nothing is lost by a clean start.
        shutil.rmtree(out, ignore_errors=True)
        return train(config, method, config_text=config_text)
    return Ended(out)


def require_unused(out: Path) -> None:
    """Raise a UserError if a folder holds anything; it says how to resume a run."""
    if not out.exists() or (out.is_dir() and is_empty(out)):
        return
    if is_finished(out):
        raise UserError(f"{out} has a finished run: choose another --out")
    resumed = as_typed(run_to_resume(out))
    hint = (
        f"resume it with `s5mars train --resume {resumed}`, or choose another --out"
        if (out / CONFIG).is_file()
        else "choose another --out"
    )
    raise UserError(f"{out} is not empty: {hint}")


def _owned(out: Path) -> AbstractContextManager[None]:
    """A lock of the run folder, held by the first process."""
    return locked(out) if _is_first() else nullcontext()


def _fit(
    config: TrainConfig,
    module: SegmentationModule,
    dataset: Dataset,
    streams: Streams,
    *,
    checkpoint: Path | None,
) -> Ended:
    out = config.out
    resumed = run_to_resume(out)
    if trains_in_stages(config, module.method):
        total = _total_steps(config, streams)
        pool = streams.pool or ()
        stages = earlier_stages(out, config, module.method, pool, steps=total // 3)
        with readable(resumed, streams, saved=lambda: "the finished stages are saved"):
            for stage, own, text in stages:
                title = f"{out}: stage {stage.out.name}"
                part = train_part(stage, own, config_text=text, title=title)
                if part.signal:
                    return Ended(out, part.signal)
        module.given_teacher = _frozen(out / "stages" / "reliable", dataset.taxonomy, config)
    feed = Feed(
        config=config,
        streams=streams,
        coding=dataset.coding,
        total_steps=module.total_steps,
        pool_from=module.pool_from,
        with_objects=module.method.needs.objects,
    )
    record = Record(config, dataset, streams, feed, stages=stages_of(out))
    loop = Loop(module, feed, record)
    with closing(record), explained(loop, checkpoint):
        loop.run(checkpoint)
    if not loop.fabric.is_global_zero:
        return Ended(out)
    # A signal that comes after the last validation also stops the folds or stages that follow.
    if module.step < module.total_steps or loop.is_pending or loop.signals.stopped_by:
        print(
            f"stopped by {loop.signals.stopped_by} after step {module.step} of "
            f"{module.total_steps}, saved; resume with: s5mars train --resume {as_typed(resumed)}",
            file=sys.stderr,
        )
        return Ended(out, loop.signals.number)
    if checkpoint is not None and not (out / METRICS).is_file():
        record.write(module)
    with readable(resumed, streams, saved=lambda: loop.saved):
        _complete(out, config, dataset, streams)
    record.summarise(module)
    return Ended(out)


def _complete(run: Path, config: TrainConfig, dataset: Dataset, streams: Streams) -> None:
    """Add to the best weights what is measured with them."""
    if not has_domain(run):
        record_domain(run, streams, accelerator=config.accelerator)
    if lacks_class_biases(run, config):
        add_class_biases(run, config, dataset, streams)


def _complete_finished(run: Path, config: TrainConfig, method: Method) -> None:
    """Add to a finished run what it lacks because it was stopped after its last step."""
    missing = not has_domain(run) or lacks_class_biases(run, config)
    if missing and _is_first() and config.data.exists():
        with locked(run):
            dataset = open_dataset(config.data, splits=config.splits)
            streams = recorded_streams(dataset, run, config, method)
            _complete(run, config, dataset, streams)


def _build_module(
    config: TrainConfig, method: Method, taxonomy: Taxonomy, streams: Streams
) -> SegmentationModule:
    seed_everything(config.seed, verbose=False)  # initialises the new layers
    student = starting_network(config, method, taxonomy).to(memory_format=torch.channels_last)
    areas = None if streams.areas is None else torch.from_numpy(streams.areas.sum(0))
    steps = _total_steps(config, streams)
    teacher = None if config.teacher is None else _frozen(config.teacher, taxonomy, config)
    return SegmentationModule(
        student,
        method,
        config=with_usable_alignment(config, streams),
        total_steps=steps_of_last(steps) if trains_in_stages(config, method) else steps,
        areas=areas,
        given_teacher=teacher,
    )


def _total_steps(config: TrainConfig, streams: Streams) -> int:
    """Optimiser steps of all stages together."""
    if config.steps is not None:
        return config.steps
    # Count images that were removed since, because the schedule must not change.
    images = max(len(streams.labelled), len(streams.pool or ()) + streams.lost)
    return max(1, math.ceil((config.epochs or 0) * images / config.batch - ROUNDING))


def _frozen(teacher: Path, taxonomy: Taxonomy, config: TrainConfig) -> SegmentationNetwork:
    network = given_teacher(
        teacher,
        taxonomy,
        data=config.data,
        resolution=Resolution.parse(config.resolution),
    )
    return network.to(memory_format=torch.channels_last)


def _is_first() -> bool:
    """Whether this is the process that prints and writes."""
    # If processes are started by hand on several machines, Lightning sets the rank only later.
    node = os.environ.get("NODE_RANK", "0")
    return bool(getattr(rank_zero_only, "rank", 0) == 0 and node == "0")


def quieten_lightning() -> None:
    """Keep Lightning's notes about itself out of the output."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if not _is_first():
        logging.getLogger("s5mars").setLevel(logging.ERROR)  # only the first process warns
