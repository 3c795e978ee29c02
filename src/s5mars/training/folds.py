"""Cross-validation: one run per fold, scored on the images of the fold.

``RUN/fold-1`` and so on are ordinary runs. Their split lists are in ``RUN/lists``: the images of
the fold are the test split, all other images of the train split are used for training.
``RUN/folds.json`` has the scores.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from s5mars.classes import Taxonomy
from s5mars.data.dataset import Dataset
from s5mars.data.layouts import open_dataset
from s5mars.data.layouts.splitting import write_lists
from s5mars.data.names import as_lines
from s5mars.data.partition import POOLS, draw_partition, pool
from s5mars.data.stratify import Areas, label_areas, stratified_order
from s5mars.devices import device_of
from s5mars.errors import UserError, as_typed
from s5mars.evaluation.command import evaluate
from s5mars.evaluation.confusion import Confusion
from s5mars.evaluation.found import is_outdated, read_evaluation
from s5mars.files import write_json, write_text
from s5mars.files.locking import locked
from s5mars.files.reading import read_text
from s5mars.files.run_folder import CONFIG, FOLDS, TENSORS, VERSIONS, evaluation_path
from s5mars.models.checkpoint import load_model
from s5mars.predict.inference import Inference
from s5mars.products import read_info
from s5mars.proposals.prepare import check_given, checked_objects
from s5mars.settings.config import TrainConfig
from s5mars.settings.parsing import with_changes
from s5mars.text.numbers import UNKNOWN, score
from s5mars.text.spread import summary_of_known
from s5mars.training.environment import processes, versions
from s5mars.training.run import (
    quieten_lightning,
    record_resumed,
    require_unused,
    resumed_settings,
    settled,
    train_part,
)
from s5mars.training.signals import Ended
from s5mars.types import Method, Sample

logger = logging.getLogger("s5mars")


def cross_validate(
    config: TrainConfig, method: Method, *, config_text: str, chosen: str = ""
) -> Ended:
    """Divide the labelled images into folds, and train and score a run for each.

    Images of one sol, where their names tell it, are in one fold; otherwise images are divided
    one by one. The folds are stratified by label area. Arguments as ``training.run.train``.

    Raises:
        UserError, MissingFileError: if settings or data are wrong, or there are fewer labelled
            images than folds.
    """
    out = config.out
    require_unused(out)
    quieten_lightning()
    if processes(config) > 1:
        raise UserError("--folds trains its runs in one process: use --devices 1")
    if config.objects is not None:
        check_given(config.objects)
    dataset = open_dataset(config.data, splits=config.splits)
    config, config_text = settled(config, config_text, dataset)
    labelled, _ = draw_partition(
        dataset, config.labelled, seed=config.partition_seed, skip_bad=config.skip_bad
    )
    if len(labelled) < config.folds:
        raise UserError(
            f"--folds {config.folds} needs as many labelled images or more (got {len(labelled)})"
        )
    areas, _ = label_areas(
        labelled, dataset.coding, len(dataset.taxonomy), skip_bad=config.skip_bad
    )
    if method.needs.objects:
        with checked_objects(config.objects, labelled):  # before anything is written
            pass
    parts = divide(labelled, areas, config.folds, seed=config.partition_seed)
    listed = () if config.pool in POOLS else pool(dataset, config.pool)
    with locked(out):
        require_unused(out)
        for number, part in enumerate(parts, 1):
            _write_fold(out, number, part, labelled, dataset, folds=config.folds)
            if listed:
                write_text(_pool_of(out, number), as_lines(_names_without(listed, part)))
        write_json(out / VERSIONS, versions())
        write_text(out / CONFIG, config_text)  # last: it says that the folds are complete
    if chosen:
        print(chosen, file=sys.stderr)
    return resume_folds(out, config, method)


def resume_folds(
    run: Path,
    config: TrainConfig,
    method: Method,
    *,
    data: Path | None = None,
    skip_bad: bool = False,
) -> Ended:
    """Train and score the folds of a run that are missing, and print the scores of all.

    Arguments as ``training.run.resume``.

    Raises:
        UserError, MissingFileError: if the run or its data are missing or have changed, or if
            another process works on the run.
    """
    quieten_lightning()
    recorded = config
    config = resumed_settings(config, run, data=data, skip_bad=skip_bad)
    scores: list[Mapping[str, Any]] = []
    with locked(run):
        record_resumed(config, run, data=data, skip_bad=skip_bad)
        text = read_text(run / CONFIG)
        for number in range(1, config.folds + 1):
            pool_list = _pool_of(run, number)
            part = replace(
                config,
                folds=0,
                out=run / f"fold-{number}",
                splits=(run / "lists" / f"fold-{number}").absolute(),
                labelled=str((run / "lists" / f"fold-{number}.txt").absolute()),
                pool=str(pool_list) if pool_list.is_file() else config.pool,
                object_cache=_object_cache(config) if method.needs.objects else None,
            )
            own = with_changes(text, recorded, part)
            title = f"{run}: fold {number} of {config.folds}"
            ended = train_part(part, method, config_text=own, title=title)
            if ended.signal:
                return Ended(run, ended.signal)
            scores.append(_score(part))
        taxonomy = load_model(run / "fold-1").taxonomy
        summary = summarise(scores, taxonomy)
        write_json(run / FOLDS, summary)
    print(as_table(summary))
    print(
        "Each run was scored on the images of its fold, and trained on those of the others; its "
        f"model is in {run / 'fold-N'}.\nTo train on all labelled images: s5mars train "
        f"{as_typed(config.data)}"
    )
    return Ended(run)


def divide(
    samples: Sequence[Sample], areas: Areas, folds: int, *, seed: int
) -> tuple[tuple[Sample, ...], ...]:
    """Divide labelled images, at least as many as folds, stratified by label area.

    ``areas`` are (N, C): how many pixels of each class each image has. The seed chooses among
    equally good divisions.
    """
    sols = [read_info(sample.name).sol for sample in samples]
    keys: list[object] = list(sols)
    if None in sols or len(set(sols)) < folds:
        keys = list(range(len(samples)))
        logger.warning(
            "images are divided individually, because their names do not contain enough different "
            "sols. Frames of one place may be in two folds, which makes the scores too high."
        )
    groups = list(dict.fromkeys(keys))
    members = [[i for i, key in enumerate(keys) if key == group] for group in groups]
    order = stratified_order(np.stack([areas[at].sum(0) for at in members]), seed=seed)
    # Neighbours in the order complement each other, so each fold takes every n-th group.
    return tuple(
        tuple(samples[i] for i in sorted(i for group in order[fold::folds] for i in members[group]))
        for fold in range(folds)
    )


def summarise(scores: Sequence[Mapping[str, Any]], taxonomy: Taxonomy) -> dict[str, Any]:
    """Mean and spread of the scores of the folds, and the score of all their images together.

    Args:
        scores: what ``evaluate`` returns for each fold.

    Returns:
        For ``mIoU`` and the IoU of each class ``mean``, ``standard_deviation`` (with n - 1; None
        for one fold) and ``values`` of the folds that have the class, in percent; ``together``:
        the scores of the sum of the confusion matrices, in which every image counts once, predicted
        by a network that has not seen it.
    """
    total = Confusion(len(taxonomy))
    for each in scores:
        total += Confusion(len(taxonomy), matrix=each["confusion"])
    return {
        "folds": len(scores),
        "images": [each["protocol"]["images"] for each in scores],
        "mIoU": _spread([each["mIoU"] for each in scores]),
        "classes": {
            name: _spread([each["classes"][name]["iou"] for each in scores])
            for name in taxonomy.names
        },
        "together": total.to_dict(taxonomy),
    }


def as_table(summary: Mapping[str, Any]) -> str:
    """Format the summary for a terminal."""
    together, whole = summary["together"], summary["mIoU"]
    wide = max(map(len, (*summary["classes"], "class")))
    lines = [f"{'fold':>6}  {'images':>6}  {'mIoU':>7}"]
    lines += [
        f"{number:>6}  {images:>6}  {score(value):>7}"
        for number, (images, value) in enumerate(
            zip(summary["images"], whole["values"], strict=True), 1
        )
    ]
    lines += ["", f"{'class':<{wide}}  {'IoU':>15}  {'folds':>5}  {'together':>8}"]
    for name, entry in summary["classes"].items():
        having = sum(value is not None for value in entry["values"])
        iou = together["classes"][name]["iou"]
        lines.append(f"{name:<{wide}}  {_plus_minus(entry):>15}  {having:>5}  {score(iou):>8}")
    lines += [
        "",
        f"mIoU {_plus_minus(whole)} % (mean ± standard deviation over {summary['folds']} folds); "
        f"{score(together['mIoU'])} % over all {sum(summary['images'])} images together",
    ]
    return "\n".join(lines)


def _object_cache(config: TrainConfig) -> Path | None:
    """The folder of the object masks that all folds share; None if they are given."""
    if config.objects is not None:
        return None
    return config.object_cache or (config.out / "objects").absolute()


def _score(part: TrainConfig) -> Mapping[str, Any]:
    scored = evaluation_path(part.out, split="test", protocol="full")
    if scored.is_file() and not is_outdated(scored, part.out / TENSORS):
        return read_evaluation(scored)
    inference = Inference(device=device_of(part.accelerator))
    return evaluate(part.out, data=part.data, splits=part.splits, inference=inference, show=False)


def _write_fold(
    out: Path,
    number: int,
    part: Sequence[Sample],
    labelled: Sequence[Sample],
    dataset: Dataset,
    *,
    folds: int,
) -> None:
    lists = {
        "train": _names_without(dataset.split("train"), part),
        "val": [sample.name for sample in dataset.splits.get("val", ())],
        "test": [sample.name for sample in part],
    }
    folder = out / "lists" / f"fold-{number}"
    write_lists(
        folder,
        {split: names for split, names in lists.items() if names},
        first_line=f"for fold {number} of {folds}",
    )
    write_text(folder.with_name(f"{folder.name}.txt"), as_lines(_names_without(labelled, part)))


def _pool_of(run: Path, number: int) -> Path:
    """The pool of a fold, if ``--pool`` is a list, which may name images that are held out."""
    return (run / "lists" / f"fold-{number}-pool.txt").absolute()


def _names_without(samples: Sequence[Sample], part: Sequence[Sample]) -> list[str]:
    held_out = {sample.name for sample in part}
    return [sample.name for sample in samples if sample.name not in held_out]


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    found = summary_of_known(values)
    return {
        "mean": None if found is None else found.mean,
        "standard_deviation": None if found is None else found.spread,
        "values": list(values),
    }


def _plus_minus(entry: Mapping[str, Any]) -> str:
    return str(summary_of_known(entry["values"]) or UNKNOWN)
