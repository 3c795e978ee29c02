"""The report of one run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s5mars.errors import UserError
from s5mars.report import confidence, curves, examples, tables, words
from s5mars.report.evaluations import evaluation_of, is_stale
from s5mars.report.folder import Run, read_run
from s5mars.report.numbers import count, duration, number, plural, score
from s5mars.report.render import write_page

_KINDS = {
    "typical": ("Typical", "Around the median score: what to expect of a new image."),
    "best": ("Best", "The highest scores."),
    "worst": ("Worst", "The lowest scores: look here first for what goes wrong."),
}


def write_report(run: Path | str, *, out: Path | str | None = None, examples: int = 4) -> Path:
    """Write one self-contained HTML page about a run.

    The evaluation in the run folder is shown; if there is none, the run is evaluated first. Only
    the images that are shown are predicted anew. Where the data or the weights are gone, the page
    says so in place of the images.

    Args:
        run: a run folder of ``s5mars train``.
        out: the file to write; default ``report.html`` in the run folder.
        examples: images of each kind (typical, best, worst); 0 shows none.

    Returns:
        The path of the page.

    Raises:
        MissingFileError: if the folder is no run, or there is no evaluation and the data is gone.
        UserError: if a file of the run is damaged, or ``examples`` is negative.
        OSError: if the page cannot be written.
    """
    if examples < 0:
        raise UserError(f"examples is {examples}: the least is 0")
    found = read_run(run)
    page = report_page(found, evaluation_of(found), each=examples)
    return write_page(
        "report.html.j2", page, Path(out) if out is not None else found.folder / "report.html"
    )


def report_page(run: Run, evaluation: Mapping[str, Any], *, each: int) -> dict[str, Any]:
    """All that the template asks for.

    Args:
        run: the run.
        evaluation: the content of an evaluation file.
        each: images of each kind.
    """
    rows = tables.class_rows(evaluation, run.taxonomy)
    confusion = tables.confusion_table(evaluation, run.taxonomy)
    classes = examples.legend(run.taxonomy)
    groups, no_images = _groups(run, evaluation, each)
    network, split = words.network_word(run), run.selection_split or "val"
    calibration = confidence.calibration_of(run)
    return {
        "title": f"{run.title} on {run.data_name}",
        "eyebrow": "s5mars · training report",
        "method": run.title,
        "data": run.data_name,
        "lead": words.lead(run),
        "notices": words.notices(run, evaluation, stale=is_stale(run)),
        "contents": [
            ("scores", "Scores"),
            ("classes", "Classes"),
            *([("confusion", "Confusion")] if confusion else []),
            *([("confidence", "Confidence")] if calibration else []),
            ("training", "Training"),
            ("teacher", "Pseudo-labels"),
            ("images", "Images"),
            ("setup", "Setup"),
        ],
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
        "curves": curves.training_curves(run),
        "curves_note": f"Scores are those of the {network} on the {split} split.",
        "class_curves": curves.class_curves(run),
        "selection_split": split,
        "teacher_title": f"What the {network} was sure of",
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
        "footer": f"Written by s5mars from {run.folder}. It is one file and loads nothing else.",
    }


def _facts(run: Run) -> list[tuple[str, str]]:
    metrics, best = run.metrics, run.metrics.get("best")
    steps, kept = number(metrics.get("steps")), curves.best_step(run)
    pool = number(metrics.get("pool_images"))
    training_score = best.get("mIoU") if isinstance(best, Mapping) else None
    facts = [
        ("Labelled images", words.labelled_share(run)),
        ("Pool", "none" if not pool else plural(round(pool), "image")),
        ("Encoder", str(_mapping(run.best.get("model")).get("encoder") or "not recorded")),
        ("Encoder weights", _described(metrics, "encoder_weights", "encoder weights: ")),
        ("Object proposals", _described(metrics, "objects", "objects: ")),
        ("Steps", count(steps)),
        ("Crops of the pool", words.pool_crops(run)),
        (
            "Weights of step",
            "not recorded"
            if kept is None
            else f"{count(kept)} ({run.selection_split or 'val'} mIoU {score(training_score)})",
        ),
        ("Training time", duration(metrics.get("seconds"))),
        ("Seed", count(metrics.get("seed"))),
        ("Data", str(run.data or "not recorded")),
    ]
    return [(label, value) for label, value in facts if value]


def _described(metrics: Mapping[str, Any], key: str, prefix: str) -> str:
    """What training said about its input; "" if nothing. The label on the page says the prefix."""
    return str(metrics.get(key) or "").removeprefix(prefix)


def _model(run: Run) -> list[tuple[str, str]]:
    rows = _pairs(_mapping(run.best.get("model")))
    for key, values in _mapping(run.best.get("normalisation")).items():
        if isinstance(values, list):
            rows.append((f"input {key}", ", ".join(score(value, digits=4) for value in values)))
    return rows


def _groups(run: Run, evaluation: Mapping[str, Any], each: int) -> tuple[list[dict[str, Any]], str]:
    """The shown images by kind, or the reason why there are none."""
    chosen = examples.best_worst_typical(examples.scored(evaluation), each)
    if each == 0:
        return [], "No images were asked for."
    if not chosen:
        return [], "The evaluation holds no score of a single image."
    try:
        dataset, predict = examples.open_data(run), examples.open_network(run)
    except (FileNotFoundError, ValueError) as error:
        return [], f"The images cannot be shown: {error}."
    groups = []
    for kind, ranking in chosen.items():
        title, text = _KINDS[kind]
        shown = [
            examples.show(
                dataset.sample(name),
                dataset.coding,
                run.taxonomy,
                [("prediction", "", predict)],
                text=f"mIoU {score(value, digits=1)}\u202f%",
                crop=words.crop_of(evaluation),
                errors=True,
            )
            for name, value in ranking
        ]
        groups.append({"title": title, "text": text, "shown": shown})
    return groups, ""


def _versions(run: Run) -> list[tuple[str, str]]:
    packages = _mapping(run.versions.get("packages"))
    others = {k: v for k, v in run.versions.items() if k not in ("packages", "command")}
    return _pairs({**packages, **others})


def _pairs(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (str(key), ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value))
        for key, value in mapping.items()
    ]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
