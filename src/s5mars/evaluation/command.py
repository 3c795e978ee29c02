"""The ``evaluate`` command: score a run on a data set, as a table or JSON."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from s5mars.classes import Taxonomy
from s5mars.data.trained_on import is_of_training
from s5mars.errors import UserError
from s5mars.evaluation.bootstrap import DRAWS, FEWEST, LEVEL, SEED, Interval, bootstrap
from s5mars.evaluation.class_map import ClassMap, MappedClasses, describe_map
from s5mars.evaluation.confusion import merged_taxonomy, percent
from s5mars.evaluation.found import CROSS, NO_CLASS_BIASES, SAME_CLASSES, read_evaluation
from s5mars.evaluation.opening import OpenedSplit, open_split
from s5mars.evaluation.protocols import Evaluation, Protocol, evaluate_samples, find_protocol
from s5mars.files import write_json, write_text
from s5mars.models.checkpoint import without_class_biases
from s5mars.models.facts import class_biases_of, recorded_class_biases
from s5mars.models.opened import open_model, result_path
from s5mars.predict.inference import AUTO_DEVICE, Inference
from s5mars.text.numbers import score


def evaluate(
    run: str | Path,
    *,
    data: str | Path | None = None,
    split: str = "test",
    splits: Path | None = None,
    protocol: str = "full",
    network: str = "teacher",
    merge: Sequence[str] = (),
    class_map: str | ClassMap | None = None,
    as_json: bool = False,
    inference: Inference = AUTO_DEVICE,
    class_biases: bool = True,
    draws: int = DRAWS,
    out: str | Path | None = None,
    show: bool = True,
) -> dict[str, Any]:
    """Score a run on a split, print the scores, and write them to a file.

    The file is ``evaluation-{split}-{protocol}.json``; if they apply, ``-student``,
    ``-no-class-biases`` and the merged classes are added to the name. With a class map it is
    ``cross-{data}-{map}-{split}-{protocol}.json``, and with other data or split lists than those of
    training ``cross-{data}-{lists}-same-classes-...``, so that the scores on the model's own data
    stay.

    Args:
        run: a run folder, a checkpoint, an ONNX file, or ``hf:OWNER/NAME``.
        data: path to a data set, with the classes of the checkpoint unless there is a class map;
            None is the one that it was trained on.
        split: ``"train"``, ``"val"``, ``"test"``, or another split of the data set.
        splits: folder of the split lists (see ``data.trained_on``).
        protocol: ``"full"`` (whole images) or ``"paper"`` (the middle 1024 × 1024 pixels).
        network: ``"teacher"`` or ``"student"``.
        merge: classes to merge, such as ``["sky+ridge"]``, for scores that ignore the border
            between them.
        class_map: for data with other classes: the name of a map that ships with the package, such
            as ``"ai4mars-marsscapes"``, pairs such as ``"big rock=rock, sky=-"``, or a ``ClassMap``
            (see ``evaluation.class_map``).
        as_json: print one JSON object on standard output instead of a table.
        inference: device, windows and precision; it must not abstain.
        class_biases: whether the class biases of the model are used, if it has any.
        draws: number of bootstrap draws for the 95 % interval over images.
        out: folder of the scores, which also gets the table as a text file; the run folder if None
            (see ``models.opened.result_path``).
        show: print the scores.

    Returns:
        Content of the file: ``mIoU``, ``mAcc``, ``pixel_accuracy`` in percent, ``classes`` (name →
        ``iou``, ``acc``, ``support``), ``protocol``, ``intervals`` (as [low, high]), ``confusion``
        (counts, rows = ground truth), ``per_image``. ``None`` means no score.

    Raises:
        MissingFileError: if the run, the data or one of its files is missing.
        UserError: if the data set has other classes than the checkpoint and there is no class map,
            the map does not fit, classes are to be merged that do not exist or that the map merges,
            split, protocol or device does not exist, ``inference`` abstains, the class biases are a
            part of the file and are to be left out, no pixel of the split is labelled, ``out`` is a
            file, or a file is damaged.
    """
    chosen = find_protocol(protocol)
    class_map = _checked_map(class_map, merge)
    if out is not None and (Path(out).suffix == ".json" or Path(out).is_file()):
        raise UserError(f"--out must be a folder, where the scores get their name (got {out})")
    loaded = open_model(run, network=network)
    if not class_biases:
        loaded = without_class_biases(loaded, run)
    opened = open_split(
        run,
        loaded,
        split,
        data=data,
        splits=splits,
        inference=inference,
        class_map=class_map,
        remedy="evaluate on data with the same classes in this order, or use --map",
    )
    groups = _groups(merge, opened.taxonomy)
    with tqdm(
        total=len(opened.samples), unit="image", desc=f"evaluate {split}", disable=None
    ) as bar:
        found = evaluate_samples(
            opened.predictor,
            opened.samples,
            opened.dataset.coding,
            protocol=protocol,
            mapped=opened.mapped,
            progress=bar.update,
        )
    dataset = opened.dataset
    own = is_of_training(run, loaded.facts.get("training") or {}, dataset, splits)
    record = _protocol(opened, found, chosen, merge=merge, class_biases=class_biases)
    if not own:
        record["splits"] = None if splits is None else str(splits)
    if opened.mapped is not None:
        record["map"] = _map_record(opened.mapped, found, loaded.temperature)
    result = {
        **_scores(found, opened.taxonomy, groups, draws=draws),
        "protocol": record,
        "run": str(run),
    }
    root = dataset.root.resolve()
    if class_map is not None:
        kind = [CROSS, root.name, class_map.label]
    elif not own:
        lists = [] if splits is None else [splits.resolve().name]
        kind = [CROSS, root.name, *lists, SAME_CLASSES]
    else:
        kind = ["evaluation"]
    variants = [
        *([] if network == "teacher" else [network]),
        *([] if class_biases else [NO_CLASS_BIASES]),
        *merge,
    ]
    path = _destination(run, kind, [split, protocol, *variants], root=root, out=out)
    if out is not None:
        write_text(path.with_suffix(".txt"), f"{as_table(result)}\n")
    write_json(path, result)
    if show:
        _show(result, path, as_json=as_json)
    return result


def _checked_map(class_map: str | ClassMap | None, merge: Sequence[str]) -> ClassMap | None:
    """The class map, parsed if it is text."""
    if isinstance(class_map, str):
        class_map = ClassMap.parse(class_map)
    if class_map is not None and merge:
        raise UserError(
            "--merge cannot be combined with --map; merge classes in the map, as in "
            "soil=soil+gravel"
        )
    return class_map


def _protocol(
    opened: OpenedSplit,
    found: Evaluation,
    protocol: Protocol,
    *,
    merge: Sequence[str],
    class_biases: bool,
) -> dict[str, Any]:
    """The entry ``protocol`` of the file: what was scored, and how."""
    loaded, dataset = opened.loaded, opened.dataset
    inference = opened.predictor.inference
    biases = class_biases_of(loaded.facts, loaded.network) if class_biases else None
    fitted = (biases and recorded_class_biases(loaded.facts, loaded.network)) or {}
    return {
        "name": protocol.name,
        "words": protocol.words,
        "crop": protocol.crop,
        "window": inference.window,
        "overlap": inference.overlap,
        "precision": inference.precision,
        "resolution": str(loaded.resolution),
        "network": loaded.network,
        "class_biases": biases,
        "class_biases_fitted_on": fitted.get("split"),
        # Absolute, to know the same folder again from another directory; links keep their names.
        "data": os.path.abspath(dataset.root),  # noqa: PTH100
        "split": opened.name,
        "images": len(found.images),
        "images_of_training": opened.trained_on,
        "images_without_labels": found.without_labels,
        "ignored": sorted(dataset.coding.ignored),
        "ignored_by": dataset.ignored_by,
        "merged": list(merge),
    }


def _map_record(mapped: MappedClasses, found: Evaluation, temperature: float) -> dict[str, Any]:
    """The entry ``map`` of the protocol."""
    scored = int(found.confusion.support.sum())
    return {
        **mapped.to_dict(),
        "ignored_pixels": percent(found.ignored_by_map / (scored + found.ignored_by_map)),
        "temperature": temperature,
    }


def _destination(
    run: str | Path,
    kind: Sequence[str],
    details: Sequence[str],
    *,
    root: Path,
    out: str | Path | None,
) -> Path:
    """Path of the file; data in another folder of the same name get a file of their own.

    Args:
        kind: ``["evaluation"]``, or ``CROSS``, the name of the data set, and what differs.
        details: split, protocol and variants.
        root: the folder of the data set.
        out: folder of the file, if it is not that of the run.
    """

    def place(kind: Sequence[str]) -> Path:
        path = result_path(run, _file_name([*kind, *details]))
        return path if out is None else Path(out) / path.name

    path = place(kind)
    if kind[0] == CROSS and _is_of_other_data(path, root):
        name = f"{kind[1]}~{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"
        path = place([CROSS, name, *kind[2:]])
    return path


def _show(result: Mapping[str, Any], path: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print(f"{as_table(result)}\nWritten to {path}")


def _groups(merge: Sequence[str], taxonomy: Taxonomy) -> list[list[int]]:
    """``["sky+ridge"]`` → ``[[0, 1]]``."""
    groups = []
    for entry in merge:
        names = entry.split("+")
        unknown = [name for name in names if name not in taxonomy.names]
        if unknown or len(names) < 2:
            what = f"unknown class {unknown[0]!r}" if unknown else "only one class"
            raise UserError(
                f"--merge must join at least two of {', '.join(taxonomy.names)} by + (got "
                f"{entry!r}: {what})"
            )
        groups.append([taxonomy.names.index(name) for name in names])
    counts = Counter(name for entry in merge for name in entry.split("+"))
    if twice := [name for name, count in counts.items() if count > 1]:
        raise UserError(
            f"--merge can join each class once, but {twice[0]!r} occurs twice (got "
            f"{' '.join(merge)})"
        )
    if merge and len(taxonomy) - sum(len(group) - 1 for group in groups) < 2:
        raise UserError(f"--merge {' '.join(merge)}: fewer than two classes are left to score")
    return groups


def _scores(
    found: Evaluation, taxonomy: Taxonomy, groups: list[list[int]], *, draws: int
) -> dict[str, Any]:
    taxonomy = merged_taxonomy(taxonomy, groups)
    total = found.confusion.merged(groups)
    images = {name: confusion.merged(groups) for name, confusion in found.images.items()}
    ranges = bootstrap(list(images.values()), draws=draws)
    return {
        **total.to_dict(taxonomy),
        "intervals": {
            "level": LEVEL,
            "over": "images",
            "draws": draws,
            "seed": SEED,
            "mIoU": _in_percent(ranges.mIoU),
            "mAcc": _in_percent(ranges.mAcc),
            "pixel_accuracy": _in_percent(ranges.pixel_accuracy),
            "classes": {
                name: _in_percent(ends)
                for name, ends in zip(taxonomy.names, ranges.iou, strict=True)
            },
        },
        "confusion": total.matrix.tolist(),
        "per_image": [
            {
                "name": name,
                "mIoU": percent(confusion.mIoU),
                "mAcc": percent(confusion.mAcc),
                "pixel_accuracy": percent(confusion.pixel_accuracy),
                "support": int(confusion.support.sum()),
            }
            for name, confusion in images.items()
        ],
    }


def _in_percent(ends: Interval) -> list[float | None]:
    return [percent(end) for end in ends]


def _file_name(parts: Sequence[str]) -> str:
    return re.sub(r"[^\w+.~-]", "_", "-".join(parts)) + ".json"


def _is_of_other_data(path: Path, root: Path) -> bool:
    """Whether scores that exist are of another folder that has the same name."""
    if not path.is_file():
        return False
    protocol = read_evaluation(path).get("protocol")
    known = protocol.get("data") if isinstance(protocol, Mapping) else None
    return known is not None and Path(str(known)).resolve() != root


def as_table(result: Mapping[str, Any]) -> str:
    """Format what ``evaluate`` returns for a terminal."""
    classes, protocol, ranges = result["classes"], result["protocol"], result["intervals"]
    total = sum(entry["support"] for entry in classes.values())
    wide = max(13, *(len(name) for name in classes))
    lines = [f"{'class':<{wide}}  {'pixels':>13}  {'share':>6}  {'IoU':>6}  {'accuracy':>8}"]
    lines += [
        f"{name:<{wide}}  {entry['support']:>13,}  {100 * entry['support'] / total:>5.1f}%"
        f"  {score(entry['iou']):>6}  {score(entry['acc']):>8}"
        for name, entry in classes.items()
    ]
    absent = [name for name, entry in classes.items() if not entry["support"]]
    lines.append("")
    for key in ("mIoU", "mAcc", "pixel_accuracy"):
        low, high = ranges[key]
        interval = (
            f"   {100 * ranges['level']:.0f} % bootstrap interval over images: "
            f"{score(low)} to {score(high)}"
        )
        line = f"{key.replace('_', ' '):<{wide + 2}}{score(result[key]):>6} %"
        lines.append(line if low is None else line + interval)
    lines.append("")
    if ranges["mIoU"][0] is None:
        lines.append(
            f"No interval: fewer than {FEWEST} images have labels, which is too few for an "
            "interval."
        )
    if absent:
        lines.append(f"Without ground truth and left out of the means: {', '.join(absent)}.")
    return "\n".join([*lines, _sentence(protocol)])


def _sentence(protocol: Mapping[str, Any]) -> str:
    sentences = [
        f"The {protocol['network']} was evaluated on the {protocol['split']} split of "
        f"{protocol['data']} ({protocol['images']} images; protocol {protocol['name']!r}: "
        f"{protocol['words']}), in windows of {protocol['window']} pixels with "
        f"{100 * protocol['overlap']:.0f} % overlap."
    ]
    if protocol.get("splits"):
        sentences.append(f"The split lists are those in {protocol['splits']}.")
    if protocol["resolution"] != "full":
        sentences.append(
            f"Images were resized as in the training of the model ({protocol['resolution']})."
        )
    ignored = f"mask ids {', '.join(map(str, protocol['ignored']))}" if protocol["ignored"] else ""
    ignored = "; ".join(filter(None, (ignored, protocol["ignored_by"])))
    if ignored:
        sentences.append(f"Ignored: {ignored}.")
    if protocol["images_of_training"]:
        sentences.append(
            f"The model was trained on the labels of {protocol['images_of_training']} of these "
            "images, so the score is too high."
        )
    if protocol["images_without_labels"]:
        sentences.append(f"Images without any label: {protocol['images_without_labels']}.")
    if protocol.get("class_biases"):
        sentences.append(
            "Class biases were added to the logits (--no-class-biases leaves them out)."
        )
        if protocol.get("class_biases_fitted_on") == protocol["split"]:
            sentences.append("They were fitted on this split, so the score is too high.")
    if protocol["merged"]:
        sentences.append(f"Merged classes: {', '.join(protocol['merged'])}.")
    if "map" in protocol:
        sentences.append(describe_map(protocol["map"]))
    return " ".join(sentences)
