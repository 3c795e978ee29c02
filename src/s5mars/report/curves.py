"""Turn the history of a run into charts with titles and legends."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from s5mars.classes import Taxonomy, hex_colour
from s5mars.report.figures import Curve, chart, stacked_shares
from s5mars.report.folder import Run
from s5mars.text.numbers import UNKNOWN, at, mapping, number, score

_PERCENT = (0.0, 100.0)
_SCORES = {"mIoU": "mIoU", "mAcc": "mAcc", "pixel accuracy": "pixel_accuracy"}  # title → key


@dataclass(frozen=True)
class Drawing:
    """A chart with its title, legend and caption."""

    title: str
    svg: Markup
    legend: tuple[Curve, ...] = ()
    caption: str = ""
    colour: str = ""
    last: str = ""


def training_curves(run: Run) -> list[Drawing]:
    """Draw validation scores, loss terms and learning rate, as far as they were recorded."""
    marked = best_step(run)
    scores = [
        Curve(label, *values(run, "validation", key), series=index)
        for index, (label, key) in enumerate(_SCORES.items())
    ]
    steps, loss = values(run, "loss")
    terms = [
        Curve(term, *values(run, "terms", term), series=index)
        for index, term in enumerate(_keys(run, "terms"))
    ]
    if len(terms) != 1:
        terms.append(Curve("weighted sum", steps, loss, series=7, dash=2))
    return present(
        drawing(
            "Validation scores",
            scores,
            name="validation",
            unit="%",
            limits=_PERCENT,
            marked=marked,
            caption=""
            if marked is None
            else f"Dashed line: step {marked:g}, whose weights were kept.",
        ),
        drawing(
            "Loss terms",
            terms,
            name="loss",
            smooth=True,
            caption="Terms are shown before weighting; training minimises their weighted sum."
            if len(terms) > 1
            else "",
        ),
        drawing(
            "Learning rate", [Curve("learning rate", *values(run, "learning_rate"))], name="rate"
        ),
    )


def class_curves(run: Run) -> list[Drawing]:
    """Draw the validation IoU of every class over the steps, one small chart per class."""
    drawings = []
    for index, (name, colour) in enumerate(_classes(run.taxonomy)):
        curve = Curve("IoU", *values(run, "validation", "classes", name, "iou"))
        drawings.append(_small(name, colour, [curve], name=f"iou-{index}", title=f"IoU of {name}"))
    return present(*drawings)


def teacher_curves(run: Run) -> list[Drawing]:
    """Draw coverage and accuracy of the pseudo-labels, and the pixels that each term uses."""
    confident = _percent(values(run, "pseudo_labels", "confident_share"))
    accuracy = _percent(values(run, "pseudo_labels", "accuracy"))
    shares = [
        Curve(term, *_percent(values(run, "shares", term)), series=index)
        for index, term in enumerate(_keys(run, "shares"))
    ]
    records = [e for e in run.history if isinstance(e.get("pseudo_labels"), Mapping)]
    predicted = [
        [at(e, "pseudo_labels", "classes", name, "predicted") for e in records]
        for name in run.taxonomy.names
    ]
    return present(
        drawing(
            "Pseudo-labels",
            [
                Curve("confident share", *confident, series=0),
                Curve("accuracy where confident", *accuracy, series=1),
            ],
            name="pseudo",
            unit="%",
            limits=_PERCENT,
        ),
        drawing(
            "Pixels that each loss term uses",
            shares,
            name="shares",
            unit="%",
            limits=_PERCENT,
            smooth=True,
            caption="Share of the valid pixels of the pool.",
        ),
        Drawing(
            title="Classes of the confident pixels",
            svg=stacked_shares(
                [float(e["step"]) for e in records],
                predicted,
                [colour for _, colour in _classes(run.taxonomy)],
                name="predicted",
                title="Share of the confident predictions by class over the steps",
            ),
            caption="Share of the confident predictions by class, in the colours of the classes.",
        ),
    )


def teacher_classes(run: Run) -> list[Drawing]:
    """Draw accuracy and confident share of the pseudo-labels of every class over the steps."""
    drawings = []
    for index, (name, colour) in enumerate(_classes(run.taxonomy)):
        path = ("pseudo_labels", "classes", name)
        curves = [
            Curve("confident share", *_percent(values(run, *path, "share")), series=0),
            Curve("accuracy where confident", *_percent(values(run, *path, "accuracy")), series=1),
        ]
        title = f"Pseudo-labels of {name}"
        drawings.append(
            _small(name, colour, curves, name=f"pseudo-{index}", title=title, last_of=1)
        )
    return present(*drawings)


def compared_curves(labelled: Sequence[tuple[Curve, Run]]) -> list[Drawing]:
    """Draw the validation scores of several runs in one chart each.

    Args:
        labelled: for each run a curve without values, which gives its label, colour and dash.
    """
    return present(
        *(
            drawing(
                f"Validation {title}",
                [_like(curve, run, "validation", key) for curve, run in labelled],
                name=key,
                unit="%",
                caption="Ring: the step whose weights were kept."
                if any(best_step(run) is not None for _, run in labelled)
                else "",
            )
            for title, key in _SCORES.items()
        )
    )


def compared_classes(labelled: Sequence[tuple[Curve, Run]], taxonomy: Taxonomy) -> list[Drawing]:
    """Draw the validation IoU of every class, with all runs in one chart per class."""
    drawings = []
    for index, (name, colour) in enumerate(_classes(taxonomy)):
        path = ("validation", "classes", name, "iou")
        curves = [_like(curve, run, *path) for curve, run in labelled]
        drawings.append(
            _small(name, colour, curves, name=f"iou-{index}", title=f"IoU of {name}", last_of=None)
        )
    return present(*drawings)


def best_step(run: Run) -> float | None:
    """Return the step whose weights were kept; None if it was not recorded."""
    return number(at(run.metrics, "best", "step"))


Values = tuple[list[float], list[float]]
"""Steps, and a value for each of them."""


def values(run: Run, *path: str) -> Values:
    """Return the steps and values at a path of keys, skipping entries that lack one."""
    found = [(float(e["step"]), number(at(e, *path))) for e in run.history]
    known = [(step, value) for step, value in found if value is not None]
    return [step for step, _ in known], [value for _, value in known]


def _keys(run: Run, key: str) -> list[str]:
    """Return the keys of a mapping in the history, in order of first occurrence."""
    return list(dict.fromkeys(str(name) for e in run.history for name in mapping(e.get(key))))


def _percent(found: Values) -> Values:
    return found[0], [100 * value for value in found[1]]


def _like(curve: Curve, run: Run, *path: str) -> Curve:
    steps, found = values(run, *path)
    return replace(curve, steps=steps, values=found, kept=best_step(run))


def _classes(taxonomy: Taxonomy) -> list[tuple[str, str]]:
    return [(c.name, hex_colour(c.colour)) for c in taxonomy.classes]


def present(*drawings: Drawing) -> list[Drawing]:
    """Return the drawings that are not empty."""
    return [drawing for drawing in drawings if drawing.svg]


def drawing(
    title: str,
    curves: Sequence[Curve],
    *,
    name: str,
    unit: str = "",
    limits: tuple[float, float] | None = None,
    marked: float | None = None,
    smooth: bool = False,
    caption: str = "",
    along: str = "step",
) -> Drawing:
    """Draw a chart with its legend; ``figures.chart`` describes the other parameters."""
    known = [curve for curve in curves if not curve.empty]
    over = "training steps" if along == "step" else along
    svg = chart(
        known,
        name=_identifier(name),
        title=f"{title} over the {over}: {', '.join(c.label for c in known)}",
        unit=unit,
        limits=limits,
        marked=marked,
        smooth=smooth,
        along=along,
    )
    # A curve that is alone because the others have no values still needs its name.
    return Drawing(title, svg, tuple(known) if len(curves) > 1 else (), caption)


def _small(
    label: str,
    colour: str,
    curves: Sequence[Curve],
    *,
    name: str,
    title: str,
    last_of: int | None = 0,
) -> Drawing:
    # With several curves it would be unclear which of them the tint belongs to.
    below = colour if len(curves) == 1 else ""
    svg = chart(curves, name=name, title=title, limits=_PERCENT, small=True, below=below)
    last = ""
    if last_of is not None:
        known = curves[last_of].points()[1]
        last = score(float(known[-1]), digits=0) if len(known) else UNKNOWN
    return Drawing(label, svg, tuple(curves), colour=colour, last=last)


def _identifier(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())
