"""Class maps as pictures: indexed PNGs, and overlays with a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from s5mars.classes import IGNORE, Taxonomy
from s5mars.errors import UserError
from s5mars.predict.regions import class_counts

LEGEND_BACKGROUND = (24, 24, 24)
LEGEND_TEXT = (240, 240, 240)
LEGEND_FRAME = (150, 150, 150)
BADGE_BACKGROUND = (255, 176, 0)
BADGE_TEXT = (0, 0, 0)
SMALLEST_TEXT = 12
"""Smallest height of the legend's text in pixels; it grows with the image."""

OPACITY = 0.5
"""Weight of the class colours."""

STRIP = 1024
"""Number of rows that are blended at a time."""

OUTLINE_SHARE = 1 / 800
"""Width of the outlines as a fraction of the longer side of the image; at least one pixel."""

OUTLINE_OPACITY = 0.6

TEXT_SHARE = 1 / 45
"""Text height as a fraction of the image width: readable when the image is shrunk."""


Entry = tuple[str, tuple[int, int, int] | None]
"""Text and colour of a legend entry; None draws an empty frame."""


def indexed_png(labels: NDArray[np.uint8], taxonomy: Taxonomy) -> Image.Image:
    """A class map as an image of mode P, whose values are the class indices.

    Args:
        labels: (H, W) uint8 class indices; 255 (``IGNORE``) is drawn black.

    Raises:
        UserError: if a label is not a class index, or shape or dtype is wrong.
    """
    _check(labels, taxonomy)
    picture = Image.fromarray(labels)
    picture.putpalette(taxonomy.palette)
    return picture


def overlay(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    taxonomy: Taxonomy,
    *,
    opacity: float = OPACITY,
    legend: bool = True,
    badge: str = "",
) -> Image.Image:
    """Draw the classes in colour over the image, with a legend below it.

    Regions have an outline, dark in bright colours and bright in dark ones: a white class on grey
    ground would not be seen without it.

    Args:
        image: (H, W, 3) uint8, RGB.
        labels: (H, W) uint8 class indices; 255 (``IGNORE``) is left unchanged.
        opacity: weight of the class colour, in [0, 1].
        legend: add a strip below with colour, name and pixel fraction of each class that is there.
            The result is taller than the image, and wider than a very narrow image.
        badge: warning to write into the upper left corner, cut to the width of the image.

    Returns:
        An image of mode RGB whose upper left (H, W) pixels are the overlay.

    Raises:
        UserError: if image and labels differ in size, a label is not a class index, or ``opacity``
            is out of range.
    """
    _check(labels, taxonomy)
    if image.dtype != np.uint8 or image.shape != (*labels.shape, 3):
        raise UserError(
            f"image must have shape {(*labels.shape, 3)} and dtype uint8, as its labels have shape "
            f"{labels.shape} (got {image.shape}, {image.dtype})"
        )
    if not 0 <= opacity <= 1:
        raise UserError(f"opacity must be in [0, 1] (got {opacity})")
    height, width = labels.shape
    # Only one full-size picture: each copy of a panorama takes hundreds of megabytes.
    if legend:
        canvas = above_legend(width, height, _entries(labels, taxonomy))
    else:
        canvas = Image.new("RGB", (width, height))
    for top in range(0, height, STRIP):
        rows = slice(top, top + STRIP)
        picture = Image.fromarray(image[rows])
        # Blend all classes at once; one after another would be slow.
        colours = Image.fromarray(labels[rows])
        colours.putpalette(taxonomy.palette)
        mixed = Image.blend(picture, colours.convert("RGB"), opacity)
        picture.paste(mixed, mask=Image.fromarray(labels[rows] != IGNORE))
        if opacity > 0:
            edges = _edges(labels, rows, width=max(1, round(max(height, width) * OUTLINE_SHARE)))
            colours.putpalette(_outline_colours(taxonomy))
            lines = Image.blend(picture, colours.convert("RGB"), OUTLINE_OPACITY)
            picture.paste(lines, mask=Image.fromarray(edges))
        canvas.paste(picture, (0, top))
    if badge:
        _draw_badge(canvas, badge, width=width)
    return canvas


def _edges(labels: NDArray[np.uint8], rows: slice, *, width: int) -> NDArray[np.bool_]:
    """Pixels of these rows that have a class and are closer than ``width`` to another label."""
    first = max(0, rows.start - width)  # the lines of neighbouring strips must meet
    part = labels[first : rows.stop + width]
    edges = np.zeros(part.shape, bool)
    for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = part[a] != part[b]
        edges[a] |= differs
        edges[b] |= differs
    grown = 1
    while grown < width:
        step = min(grown, width - grown)
        wider = edges.copy()
        for a, b in ((np.s_[step:], np.s_[:-step]), (np.s_[:, step:], np.s_[:, :-step])):
            wider[a] |= edges[b]
            wider[b] |= edges[a]
        edges, grown = wider, grown + step
    edges &= part != IGNORE
    return edges[rows.start - first :][: rows.stop - rows.start]


def _outline_colours(taxonomy: Taxonomy) -> list[int]:
    """The palette of outlines: black for a bright class, white for a dark one."""
    colours = np.array([entry.colour for entry in taxonomy.classes])
    dark = colours @ (0.299, 0.587, 0.114) < 100
    return [int(value) for value in np.repeat(np.where(dark, 255, 0), 3)]


def _draw_badge(canvas: Image.Image, text: str, *, width: int) -> None:
    size = max(SMALLEST_TEXT, round(width * TEXT_SHARE))
    font = ImageFont.load_default(size)
    gap = size // 3
    while text and font.getlength(text) > width - 2 * gap:
        text = f"{text[:-2]}…" if len(text) > 2 else ""
    box = (0, 0, round(font.getlength(text)) + 2 * gap, size + 2 * gap)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle(box, fill=BADGE_BACKGROUND)
    draw.text((gap, gap + size / 2), text, fill=BADGE_TEXT, font=font, anchor="lm")


def above_legend(
    width: int, height: int, entries: Sequence[Entry], *, text: int | None = None
) -> Image.Image:
    """An empty picture of this size with a legend below it, and wider if an entry needs that.

    ``text`` is the height of the text in pixels; None scales it with the picture.
    """
    size = text or max(SMALLEST_TEXT, round(width * TEXT_SHARE))
    font = ImageFont.load_default(size)
    gap, line = size // 2 + 2, round(1.6 * size)
    widths = [line + round(font.getlength(said)) + 2 * gap for said, _ in entries]
    width = max([width, *(w + gap for w in widths)])
    places, x, y = [], gap, height + gap
    for entry_width in widths:
        if x + entry_width > width and x > gap:
            x, y = gap, y + line
        places.append((x, y))
        x += entry_width
    canvas = Image.new("RGB", (width, y + line + gap), LEGEND_BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for (said, colour), (left, top) in zip(entries, places, strict=True):
        swatch = (left, top + (line - size) // 2, left + size, top + (line + size) // 2)
        draw.rectangle(swatch, fill=colour, outline=LEGEND_FRAME, width=max(1, size // 12))
        draw.text((left + line, top + line / 2), said, fill=LEGEND_TEXT, font=font, anchor="lm")
    return canvas


def _entries(labels: NDArray[np.uint8], taxonomy: Taxonomy) -> list[Entry]:
    counts = class_counts(labels)
    entries: list[Entry] = [
        (f"{entry.name} {_share(int(count), labels.size)}", entry.colour)
        for entry, count in zip(taxonomy.classes, counts, strict=False)
        if count
    ]
    if counts[IGNORE]:
        entries.append((f"no class {_share(int(counts[IGNORE]), labels.size)}", None))
    return entries


def _share(count: int, total: int) -> str:
    percent = 100 * count / total
    return "< 1 %" if 0 < percent <= 0.5 else f"{percent:.0f} %"


def _check(labels: NDArray[np.uint8], taxonomy: Taxonomy) -> None:
    if labels.dtype != np.uint8 or labels.ndim != 2:
        raise UserError(
            f"labels must be (height, width) uint8 (got {labels.shape}, {labels.dtype})"
        )
    present = np.flatnonzero(class_counts(labels))
    wrong = [int(i) for i in present if i >= len(taxonomy) and i != IGNORE]
    if wrong:
        raise UserError(f"labels contain {wrong}: {taxonomy.name!r} has {len(taxonomy)} classes")
