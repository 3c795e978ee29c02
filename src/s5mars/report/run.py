"""Write the report of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s5mars.errors import UserError, require_limit
from s5mars.evaluation.calibrate import read_calibration
from s5mars.evaluation.class_biases import describe_class_biases
from s5mars.files.reading import reading
from s5mars.files.run_folder import FACTS
from s5mars.report import confidence, curves, examples, tables, words
from s5mars.report.evaluations import cross_notices, cross_rows, evaluation_of, is_stale
from s5mars.report.folder import Run, read_run
from s5mars.report.pictures import legend
from s5mars.report.render import check_page, write_page
from s5mars.text.numbers import at, count, duration, mapping, number, plural, score

_KINDS = {
    "typical": ("Typical", "Images around the median score."),
    "best": ("Best", "Images with the highest scores."),
    "worst": ("Worst", "Images with the lowest scores."),
    "labelled": ("Labelled", "Images whose labels the run was trained on."),
    "unlabelled": ("Unlabelled", "Images without labels."),
}


def write_report(
    run: Path | str,
    *,
    out: Path | str | None = None,
    examples: int = 4,
    data: Path | None = None,
    splits: Path | None = None,
) -> Path:
    """Write one self-contained HTML page about a run.

    The page shows the evaluation in the run folder; if there is none, the run is evaluated first.
    Only the images on the page are predicted again. If the data, one of these images or the weights
    cannot be read, the page says so in place of the images.

    Args:
        run: run folder of ``s5mars train``.
        out: path of the file to write; default ``report.html`` in the run folder.
        examples: number of images of each kind (typical, best, worst); 0 shows none.
        data: where the data of the run is now, if it was moved.

    Raises:
        MissingFileError: if the folder is not a run, or has no evaluation and the data is missing.
        UserError: if a file of the run is damaged, ``examples`` is negative, or ``out`` does not
            end in .html.
        OSError: if the page cannot be written.
    """
    require_limit("at least 0", examples=examples)
    check_page(out)
    found = read_run(run, data=data, splits=splits)
    page = report_page(found, evaluation_of(found), amount=examples)
    return write_page(
        "report.html.j2", page, Path(out) if out is not None else found.folder / "report.html"
    )


def report_page(run: Run, evaluation: Mapping[str, Any], *, amount: int) -> dict[str, Any]:
    """Return the variables of the template; ``amount`` images of each kind are shown."""
    rows = tables.class_rows(evaluation, run.taxonomy)
    confusion = tables.confusion_table(evaluation, run.taxonomy)
    classes = legend(run.taxonomy)
    groups, no_images = _groups(run, evaluation, amount)
    network, split = words.network_word(run), run.selection_split or "val"
    calibration = read_calibration(run.folder, run.best)
    elsewhere = cross_rows(run.folder)
    return {
        "title": f"{run.title} on {run.data_name}",
        "eyebrow": "s5mars · training report",
        "method": run.title,
        "data": run.data_name,
        "lead": words.lead(run),
        "notices": [
            *words.notices(run, evaluation, stale=is_stale(run)),
            *cross_notices(run.folder),
        ],
        "contents": [
            ("scores", "Scores"),
            *([("classes", "Classes")] if evaluation else []),
            *([("confusion", "Confusion")] if confusion else []),
            *([("confidence", "Confidence")] if calibration else []),
            *([("cross", "Other data")] if elsewhere else []),
            ("training", "Training"),
            ("teacher", "Pseudo-labels"),
            ("images", "Images"),
            ("setup", "Setup"),
        ],
        "is_scored": bool(evaluation),
        "protocol": words.protocol_sentence(evaluation),
        "score": tables.overall(evaluation),
        "score_note": words.interval_sentence(evaluation),
        "facts": _facts(run),
        "classes": rows,
        "has_class_ranges": any(row["range"] for row in rows),
        "absent": ", ".join(row["name"] for row in rows if row["absent"]),
        "criteria": classes if any(entry["criterion"] for entry in classes) else [],
        "confusion": confusion,
        "confidence": confidence.drawings(calibration) if calibration else [],
        "confidence_note": confidence.sentence(calibration) if calibration else "",
        "cross": elsewhere,
        "curves": curves.training_curves(run),
        "curves_note": words.curves_sentence(run),
        "class_curves": curves.class_curves(run),
        "selection_split": split,
        "teacher_title": f"Confident predictions of the {network}",
        "teacher_note": words.pseudo_label_sentence(run),
        "teacher_curves": curves.teacher_curves(run),
        "teacher_classes": curves.teacher_classes(run),
        "no_teacher": "No pseudo-labels were recorded for this run.",
        "groups": groups,
        "images_note": words.images_sentence(evaluation),
        "no_images": no_images,
        "legend": classes,
        "command": run.command,
        "config": run.config.strip(),
        "versions": _versions(run),
        "model": _model(run),
        "footer": f"Written by s5mars from {run.folder}. The page loads no other files.",
    }


def _facts(run: Run) -> list[tuple[str, str]]:
    metrics = run.metrics
    steps, kept = number(metrics.get("steps")), curves.best_step(run)
    pool = number(metrics.get("pool_images"))
    training_score = at(metrics, "best", "mIoU")
    facts = [
        ("Labelled", words.labelled_share(run)),
        ("Pool", "none" if not pool else plural(round(pool), "image")),
        ("Encoder", str(at(run.best, "model", "encoder") or "not recorded")),
        ("Encoder weights", _described(metrics, "encoder_weights", "encoder weights: ")),
        ("Object proposals", _described(metrics, "objects", "objects: ")),
        ("Steps", count(steps)),
        ("Crops of the pool", words.pool_crops(run)),
        (
            "Weights of step",
            "not recorded" if kept is None else count(kept) + _chosen_by(run, training_score),
        ),
        ("Class biases", _class_biases(run)),
        ("Training time", duration(metrics.get("seconds"))),
        ("Seed", count(metrics.get("seed"))),
        ("Data", str(run.data or "not recorded")),
    ]
    return [(label, value) for label, value in facts if value]


def _class_biases(run: Run) -> str:
    entry = mapping(at(run.best, "class_biases", words.network_word(run)))
    if not entry:
        return ""
    with reading(run.folder / FACTS, kind="description of a checkpoint"):
        return describe_class_biases(entry, run.taxonomy.names)


def _chosen_by(run: Run, training_score: object) -> str:
    split = run.selection_split
    return f" ({split} mIoU {score(training_score)})" if split else ", the last"


def _described(metrics: Mapping[str, Any], key: str, prefix: str) -> str:
    """Return what training noted about an input without its prefix; "" if nothing."""
    return str(metrics.get(key) or "").removeprefix(prefix)


def _model(run: Run) -> list[tuple[str, str]]:
    rows = _pairs(mapping(run.best.get("model")))
    for key, values in mapping(run.best.get("normalisation")).items():
        if isinstance(values, list):
            rows.append((f"input {key}", ", ".join(score(value, digits=4) for value in values)))
    return rows


def _groups(
    run: Run, evaluation: Mapping[str, Any], amount: int
) -> tuple[list[dict[str, Any]], str]:
    ranking = examples.scored(evaluation)
    if amount == 0:
        return [], "Images were switched off."
    if evaluation and not ranking:
        return [], "The evaluation has no scores of single images."
    try:
        dataset, predict = examples.open_data(run), examples.open_network(run)
        chosen: Mapping[str, Sequence[tuple[str, float | None]]] = (
            examples.best_worst_typical(ranking, amount)
            if evaluation
            else examples.without_scores(run, dataset, amount)
        )
        groups = []
        for kind, members in chosen.items():
            title, text = _KINDS[kind]
            shown = [
                examples.show(
                    dataset.sample(name),
                    dataset.coding,
                    run.taxonomy,
                    [("prediction", "", predict)],
                    text=f"mIoU {score(value, digits=1)}\u202f%" if evaluation else "",
                    crop=words.crop_of(evaluation),
                    errors=bool(evaluation),
                )
                for name, value in members
            ]
            groups.append({"title": title, "text": text, "shown": shown})
    except UserError as error:
        return [], f"The images cannot be shown: {error}."
    return groups, ""


def _versions(run: Run) -> list[tuple[str, str]]:
    packages = mapping(run.versions.get("packages"))
    others = {k: v for k, v in run.versions.items() if k not in ("packages", "command")}
    return _pairs({**packages, **others})


def _pairs(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (str(key), ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value))
        for key, value in mapping.items()
    ]
