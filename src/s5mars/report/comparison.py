"""Write an HTML page that compares several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s5mars.classes import require_same_classes
from s5mars.errors import UserError, require_limit
from s5mars.predict.spacing import evenly_spaced
from s5mars.report import curves, examples, tables, words
from s5mars.report.evaluations import evaluation_of, is_stale
from s5mars.report.figures import Curve
from s5mars.report.folder import Run, read_run
from s5mars.report.pictures import Shown, legend
from s5mars.report.render import check_page, write_page
from s5mars.text.numbers import UNKNOWN, count, duration, number, score
from s5mars.training.notes import Note


def write_comparison(
    runs: Sequence[Path | str],
    *,
    out: Path | str,
    title: str = "Runs side by side",
    notes: Sequence[str] = (),
    images: int = 8,
    data: Path | None = None,
    splits: Path | None = None,
) -> Path:
    """Write one self-contained HTML page about several runs.

    Args:
        runs: run folders of ``s5mars train``, in the order of the columns; all must have the same
            classes. A run without an evaluation is evaluated first.
        notes: sentences to show at the top.
        images: number of images to show with the prediction of every run, evenly spaced in the
            ranking by mean score, lowest score first; 0 shows none.
        data: where the data of the runs is now, if it was moved.

    Raises:
        MissingFileError: if a folder is not a run, or has no evaluation and the data is missing.
        UserError: if no run is given, a run is given twice, classes differ, a file of a run is
            damaged, or ``out`` does not end in .html.
        OSError: if the page cannot be written.
    """
    if not runs:
        raise UserError("give at least one run folder")
    require_limit("at least 0", images=images)
    check_page(out)
    folders = [Path(run).resolve() for run in runs]
    repeated = sorted({str(folder) for folder in folders if folders.count(folder) > 1})
    if repeated:
        raise UserError(f"{repeated[0]} is given twice; give each run once")
    read = [read_run(run, data=data, splits=splits) for run in runs]
    first, remedy = read[0], "give runs with the same classes"
    for run in read[1:]:
        require_same_classes(
            run.taxonomy, first.taxonomy, run=run.folder, data=first.folder, remedy=remedy
        )
    evaluations = [evaluation_of(run) for run in read]
    page = comparison_page(read, evaluations, title=title, notes=notes, images=images)
    return write_page("comparison.html.j2", page, Path(out))


def comparison_page(
    runs: Sequence[Run],
    evaluations: Sequence[Mapping[str, Any]],
    *,
    title: str,
    notes: Sequence[str] = (),
    images: int,
) -> dict[str, Any]:
    """Return the variables of the template."""
    taxonomy = runs[0].taxonomy
    scored = next(filter(None, evaluations), {})  # the others may have nothing to be scored on
    keys = _keys(runs)
    labelled = list(zip(keys, runs, strict=True))
    shown, no_images = _images(runs, evaluations, [key.label for key in keys], images)
    classes, gain = _classes(runs, evaluations)
    confusions = [
        {"label": key.label, "table": table}
        for key, evaluation in zip(keys, evaluations, strict=True)
        if (table := tables.confusion_table(evaluation, taxonomy)) is not None
    ]
    same = words.same_images(evaluations)
    has_gain = same and len(runs) == 2
    splits = sorted({run.selection_split or "val" for run in runs})
    return {
        "title": title,
        "eyebrow": "s5mars · comparison",
        "lead": _lead(runs),
        "notices": [
            *(Note("note", text) for text in notes),
            *_notices(runs, evaluations, [key.label for key in keys]),
        ],
        "contents": [
            ("scores", "Scores"),
            ("classes", "Classes"),
            *([("confusion", "Confusion")] if confusions else []),
            ("training", "Training"),
            ("images", "Images"),
            ("setup", "Setup"),
        ],
        "protocol": words.protocol_sentence(scored, several=len(runs) > 1),
        "score_note": words.interval_sentence(scored),
        "runs": _rows(runs, evaluations, keys),
        "classes": classes,
        "has_gain": has_gain,
        "gain": gain,
        "classes_note": _classes_note(same=same, has_gain=has_gain),
        "confusions": confusions,
        "run_keys": keys,
        "curves": curves.compared_curves(labelled),
        "class_curves": curves.compared_classes(labelled, taxonomy),
        "selection_split": " / ".join(splits),
        "shown": shown,
        "images_note": _images_note(scored),
        "no_images": no_images,
        "legend": legend(taxonomy),
        "footer": "Written by s5mars. The page loads no other files.",
    }


def _classes_note(*, same: bool, has_gain: bool) -> str:
    if not same:
        return (
            "The runs were scored on different images, so no value is bold. Support: the share of "
            "the labelled pixels in each run, in the order of the columns."
        )
    difference = " Difference: second run minus first run, in points." if has_gain else ""
    return f"The highest value of each row is bold.{difference}"


def _keys(runs: Sequence[Run]) -> list[Curve]:
    """Return the label, colour and dash of every run; runs of one method share a colour."""
    titles = [run.title for run in runs]
    choices = (
        titles,
        [f"{run.title}, seed {count(run.metrics.get('seed'))}" for run in runs],
        [f"{run.title} ({run.folder.name})" for run in runs],
        [str(run.folder) for run in runs],
    )
    labels = next((each for each in choices if len(set(each)) == len(each)), choices[-1])
    colours = {title: index for index, title in enumerate(dict.fromkeys(titles))}
    return [
        Curve(label, (), (), series=colours[title], dash=titles[:index].count(title))
        for index, (label, title) in enumerate(zip(labels, titles, strict=True))
    ]


def _lead(runs: Sequence[Run]) -> str:
    data = ", ".join(dict.fromkeys(run.data_name for run in runs))
    shares = list(dict.fromkeys(words.labelled_share(run) for run in runs))
    parts = [data, *([f"{shares[0]} labelled"] if len(shares) == 1 else [])]
    return " · ".join(parts)


def _notices(
    runs: Sequence[Run], evaluations: Sequence[Mapping[str, Any]], labels: Sequence[str]
) -> list[Note]:
    found: list[Note] = []
    for what, values in (
        ("data", [str(run.data and run.data.resolve()) for run in runs]),
        ("protocols", [words.comparable(evaluation) for evaluation in evaluations]),
        ("labelled images", [words.labelled_share(run) for run in runs]),
        ("lengths", [str(run.metrics.get("total_steps")) for run in runs]),
    ):
        if len(set(values)) > 1:
            listed = "; ".join(
                f"{label}: {value}" for label, value in zip(labels, values, strict=True)
            )
            found.append(
                Note(
                    "warning",
                    f"The runs differ in their {what}, so their scores are not "
                    f"directly comparable. {listed}",
                )
            )
    if not words.same_images(evaluations):
        images = [names for each in evaluations if (names := words.images_of(each))]
        common = len(frozenset.intersection(*images))
        found.append(
            Note(
                "warning",
                "The runs were scored on different images "
                f"({', '.join(str(len(each)) for each in images)}; {common} in common), so their "
                "scores are not comparable. Score them on the same split with "
                "`s5mars evaluate --data`.",
            )
        )
    labels_of: dict[Note, list[str]] = {}
    for run, evaluation, label in zip(runs, evaluations, labels, strict=True):
        for notice in words.notices(run, evaluation, stale=is_stale(run)):
            labels_of.setdefault(notice, []).append(label)
    for notice, who in labels_of.items():
        whose = "" if len(who) == len(runs) else f"{', '.join(who)}: "
        found.append(Note(notice.kind, f"{whose}{notice.text}"))
    return sorted(found, key=lambda notice: notice.kind != "warning")


def _rows(
    runs: Sequence[Run], evaluations: Sequence[Mapping[str, Any]], keys: Sequence[Curve]
) -> list[dict[str, Any]]:
    scores = [number(evaluation.get("mIoU")) for evaluation in evaluations]
    same = words.same_images(evaluations)
    return [
        {
            "label": key.label,
            "series": key.series,
            "best": same and _is_best(value, scores),
            "percent": None if value is None else round(value, 2),
            "range": tables.range_of(evaluation, "mIoU") or UNKNOWN,
            **tables.overall(evaluation),
            "labelled": count(run.metrics.get("labelled_images")),
            "pool": count(run.metrics.get("pool_images") or None),
            "steps": count(run.metrics.get("steps")),
            "time": duration(run.metrics.get("seconds")),
            "folder": str(run.folder),
            "command": run.command,
        }
        for run, evaluation, key, value in zip(runs, evaluations, keys, scores, strict=True)
    ]


def _classes(
    runs: Sequence[Run], evaluations: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], str]:
    """Return one row per class with one cell per run, and the difference in mIoU of two runs."""
    tabled = [tables.class_rows(e, runs[0].taxonomy) for e in evaluations]
    by_name = [{row["name"]: row for row in rows} for rows in tabled]
    names = dict.fromkeys(row["name"] for rows in tabled for row in rows)
    same = words.same_images(evaluations)
    result = []
    for name in names:
        found = [rows.get(name) for rows in by_name]
        values = [row["percent"] if row else None for row in found]
        first = next(row for row in found if row)
        shares = [row["share"] if row else UNKNOWN for row in found]
        result.append(
            {
                "name": name,
                "colour": first["colour"],
                "share": " / ".join(shares if len(set(shares)) > 1 else shares[:1]),
                "cells": [
                    {
                        "text": row["iou"] if row else UNKNOWN,
                        "best": same and _is_best(value, values),
                    }
                    for row, value in zip(found, values, strict=True)
                ],
                "gain": _gain(values),
            }
        )
    return result, _gain([number(evaluation.get("mIoU")) for evaluation in evaluations])


def _gain(values: Sequence[float | None]) -> str:
    first, last = values[0], values[-1]
    if len(values) != 2 or first is None or last is None:
        return UNKNOWN
    return f"{last - first:+.2f}".replace("-", "\u2212")


def _is_best(value: float | None, values: Sequence[float | None]) -> bool:
    known = [other for other in values if other is not None]
    return value is not None and len(known) > 1 and value == max(known) and min(known) < value


def _images(
    runs: Sequence[Run],
    evaluations: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    amount: int,
) -> tuple[list[Shown], str]:
    """Return images that every run has a score for, or the reason why none are shown."""
    if amount == 0:
        return [], "Images were switched off."
    scores = [dict(examples.scored(evaluation)) for evaluation in evaluations]
    common = set(scores[0]).intersection(*scores[1:])
    mean = {name: sum(known[name] for known in scores) / len(scores) for name in common}
    names = evenly_spaced(sorted(mean, key=lambda name: (mean[name], name)), amount)
    if not names:
        return [], "No image has a score in every evaluation."
    if len({run.data.resolve() if run.data else None for run in runs}) > 1:
        return [], "No images are shown because the runs were trained on different data."
    try:
        dataset = examples.open_data(runs[0])
        networks = [examples.open_network(run) for run in runs]
        shown = []
        for name in names:
            predictions = [
                (label, f"{score(known[name], digits=1)}\u202f%", network)
                for label, known, network in zip(labels, scores, networks, strict=True)
            ]
            shown.append(
                examples.show(
                    dataset.sample(name),
                    dataset.coding,
                    runs[0].taxonomy,
                    predictions,
                    text=f"mean mIoU {score(mean[name], digits=1)}\u202f%",
                    crop=words.crop_of(evaluations[0]),
                )
            )
    except UserError as error:
        return [], f"The images cannot be shown: {error}."
    return shown, ""


def _images_note(evaluation: Mapping[str, Any]) -> str:
    return (
        "The images are evenly spaced in the ranking by the mean score of the runs, lowest score "
        "first. Below each prediction is its mIoU on this image. " + words.images_part(evaluation)
    )
