"""The page that shows what was imported: numbers, overlays to check, warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s5mars.classes import Taxonomy, hex_colour
from s5mars.data.read import read_image
from s5mars.errors import UserError
from s5mars.labels.regions import Note
from s5mars.predict.overlay import overlay
from s5mars.predict.spacing import evenly_spaced
from s5mars.products.decode import decode_mask
from s5mars.report.pictures import Panel, Shown, class_map, legend, photograph, shrunk
from s5mars.report.render import write_page
from s5mars.text.numbers import count, plural, share

OVERLAYS = 12
"""Number of images that the page shows."""

_SIDE = 448
_WARNINGS = 300

RULE = (
    "Unpainted pixels are ignored (255 in the masks) in training and in scores; they are never a "
    "background class. Where labels overlap, the later one counts."
)


@dataclass(frozen=True)
class Made:
    """One mask of the new folder."""

    name: str  # of the image, without ending
    image: Path
    mask: Path
    pixels: NDArray[np.int64]  # number of pixels of each class
    size: int  # number of all pixels
    notes: tuple[str, ...] = ()


def write_import_page(
    out: Path,
    made: Sequence[Made],
    shown: Sequence[Shown],
    taxonomy: Taxonomy,
    *,
    title: str,
    lead: str,
    facts: Sequence[tuple[str, str]],
    warnings: Sequence[str],
    written_to: Path,
) -> Path:
    """Write one self-contained HTML page; raises as ``report.render.write_page``.

    The page shows the images of ``pictures``, and says that it is at ``written_to``, where the
    folder will be in the end.
    """
    page: Mapping[str, object] = {
        "title": title,
        "eyebrow": "s5mars · imported labels",
        "lead": lead,
        "notices": [{"kind": "warning", "text": _warned(warnings)}] if warnings else [],
        "contents": [
            ("summary", "Summary"),
            ("classes", "Classes"),
            ("images", "Images"),
            *([("warnings", "Warnings")] if warnings else []),
        ],
        "rule": RULE,
        "facts": facts,
        "classes": class_rows(made, taxonomy),
        "images_note": (
            f"{plural(len(shown), 'image')} of {count(len(made))}: first those with warnings, then "
            "for each class, rarest first, the image with most of it, then evenly spaced ones."
        ),
        "legend": legend(taxonomy),
        "shown": shown,
        "warnings": warnings[:_WARNINGS],
        "warnings_note": _warned(warnings),
        "footer": f"Written by s5mars import to {written_to}. The page loads nothing else.",
    }
    return write_page("labels.html.j2", page, out)


def class_rows(made: Sequence[Made], taxonomy: Taxonomy) -> list[dict[str, object]]:
    """Rows of the table of classes."""
    pixels = np.array([each.pixels for each in made])
    total = int(pixels.sum())
    painted, images = pixels.sum(0).tolist(), (pixels > 0).sum(0).tolist()
    return [
        {
            "name": each.name,
            "colour": hex_colour(each.colour),
            "share": share(amount, total),
            "percent": f"{100 * amount / max(total, 1):.2f}",
            "pixels": count(amount),
            "images": count(number),
            "absent": not amount,
        }
        for each, amount, number in zip(taxonomy.classes, painted, images, strict=True)
    ]


def pictures(made: Sequence[Made], taxonomy: Taxonomy) -> tuple[list[Shown], list[Note]]:
    """The images to check, and notes on those that cannot be shown, in whose place are others."""
    shown: list[Shown] = []
    notes: list[Note] = []
    for each in choose(made):
        if len(shown) == OVERLAYS:
            break
        try:
            shown.append(_shown(each, taxonomy))
        except UserError as error:
            notes.append(f"{error}; its labels are imported")
    return shown, notes


def choose(made: Sequence[Made]) -> list[Made]:
    """The images in the order in which they are shown; ``images_note`` of the page describes it."""
    noted = [each for each in made if each.notes][: OVERLAYS // 3]
    pixels = np.array([each.pixels for each in made])
    largest = [
        made[int(pixels[:, index].argmax())]
        for index in pixels.sum(0).argsort(kind="stable")
        if pixels[:, index].any()
    ]
    order = [*noted, *largest, *evenly_spaced(made, OVERLAYS), *made]
    return list({each.name: each for each in order}.values())


def _shown(made: Made, taxonomy: Taxonomy) -> Shown:
    image, labels = read_image(made.image), decode_mask(made.mask).ids
    # Shrunk first: an overlay of a panorama would take its memory twice.
    small = shrunk(image, side=2 * _SIDE)
    classes = Image.fromarray(labels).resize(small.size, Image.Resampling.NEAREST)
    drawn = overlay(np.array(small), np.array(classes), taxonomy, legend=False)
    painted = share(int(made.pixels.sum()), made.size)
    return Shown(
        made.name,
        f"{painted} painted" + (f" · {made.notes[0]}" if made.notes else ""),
        (
            Panel("image", photograph(image, side=_SIDE)),
            Panel("overlay", photograph(np.array(drawn), side=_SIDE)),
            Panel("mask", class_map(labels, taxonomy, side=_SIDE)),
        ),
    )


def _warned(warnings: Sequence[str]) -> str:
    more = f"; the first {_WARNINGS} are shown" if len(warnings) > _WARNINGS else ""
    return f"{plural(len(warnings), 'warning')} about the import{more}."
