"""The lines below a table: how the numbers were measured, and their limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from s5mars.comparison.general import GROUP
from s5mars.comparison.intervals import LEVEL
from s5mars.comparison.results import Comparison, Result
from s5mars.comparison.standings import Group, Standing
from s5mars.errors import listed
from s5mars.evaluation.protocols import PROTOCOLS
from s5mars.settings.networks import network_options

_PATHS = {"weights", "checkpoint", "start_from"}


def protocol_lines(comparison: Comparison, group: Group) -> list[str]:
    """Describe the protocol of a table, one line per topic."""
    settings, training = comparison.settings, comparison.settings["training"]
    data, evaluation = settings["data"], settings["evaluation"]
    cells = [cell for standing in group.standings for cell in standing.cells]
    scored = _distinct(cell.scored_images for cell in cells)
    labelled = _distinct(cell.labelled_images for cell in cells)
    steps, epochs = training["steps"], training["epochs"]
    length = f"{steps:,} steps" if steps else f"{epochs:g} epochs"
    lines = [
        f"Data: {data['folder']} (layout {data['layout']}, {len(data['classes'])} classes), "
        f"labelled share {group.share} ({labelled} images). Scored: {evaluation['split']} split "
        f"({scored} images), {PROTOCOLS[evaluation['protocol']].words} of each.",
        f"The checkpoint was chosen on the {training['select_on']} split"
        + (
            ", which is also the scored split, so the scores are too high."
            if training["select_on"] == evaluation["split"]
            else "."
        )
        + f" Scored network: {_by_row(group, _network)}.",
        f"Training: {length} of batch {training['batch']}, crop {training['crop']}, "
        f"{training['model']}, recipe {training['recipe']}; "
        f"{_distinct(cell.encoder_weights.rstrip('.') for cell in cells)}."
        + (_own_settings(comparison, group) if group.name == GROUP else ""),
        f"Image resolution: {training['resolution']}. {_pool_crops(cells)}",
        f"Seeds: {_by_row(group, _seeds)}. "
        f"Seed of the label partition: {training['partition_seed']}.",
    ]
    if comparison.note:
        lines.append(f"Note: {comparison.note}")
    return lines + _warnings(group)


def reading_lines(group: Group) -> list[str]:
    """Explain how to read the table."""
    lines = [
        "Scores are in percent, mean ± standard deviation over seeds. Differences are in points of "
        f"mIoU, paired by seed, with Student's {100 * LEVEL:.0f} % t interval; an interval that "
        "includes zero shows no difference. The best other row is the one with the highest mean "
        "difference to the row, on these same seeds."
    ]
    if len({standing.mIoU.n for standing in group.standings}) > 1:
        lines.append(
            "Rows have different numbers of seeds; use the paired columns to compare them."
        )
    return lines


def missing_lines(group: Group) -> list[str]:
    """List the cells without a score by name."""
    lines = [f"Failed: {cell.name}: {cell.reason}." for cell in group.failed]
    by_reason: dict[str, list[str]] = {}
    for cell in group.unavailable:
        by_reason.setdefault(cell.reason, []).append(cell.name)
    lines += [f"Not measured: {', '.join(names)}: {why}." for why, names in by_reason.items()]
    if group.unfinished:
        lines.append(f"Not finished: {listed([cell.name for cell in group.unfinished])}.")
    return lines


def _pool_crops(cells: Sequence[Result]) -> str:
    seen = _distinct(cell.pool_crops for cell in cells if cell.pool_crops)
    return f"Methods with a pool use {seen} crops of it." if seen != "–" else "No row uses a pool."


def _own_settings(comparison: Comparison, group: Group) -> str:
    """Describe the training settings that rows with other networks change."""
    sentences = []
    for standing in group.standings:
        changed = dict(comparison.rows[standing.row]["settings"]["training"])
        kind = network_options(changed.get("model", ""))
        if kind.fixed_crops:
            changed["scale"] = "none (fixed crops)"
        changed |= changed.pop(kind.group, {})
        text = ", ".join(f"{name} {value}" for name, value in changed.items() if name not in _PATHS)
        sentences.append(f" {standing.title} changes {text}.")
    return "".join(sentences)


def _by_row(group: Group, value_of: Callable[[Standing], str]) -> str:
    """``"0, 1"`` if all rows share a value, else ``"0, 1 (Supervised, MT); 0 (S5Mars)"``."""
    rows: dict[str, list[str]] = {}
    for standing in group.standings:
        rows.setdefault(value_of(standing), []).append(standing.title)
    if len(rows) == 1:
        return next(iter(rows))
    return "; ".join(f"{value} ({', '.join(titles)})" for value, titles in rows.items())


def _network(standing: Standing) -> str:
    return _distinct(cell.network for cell in standing.cells)


def _seeds(standing: Standing) -> str:
    return ", ".join(str(seed) for seed in sorted(cell.seed for cell in standing.cells))


def _warnings(group: Group) -> list[str]:
    """List the notes of the runs once each, with rows and seeds unless they apply to all."""
    whose: dict[str, dict[str, list[int]]] = {}  # note → title → seeds
    for standing in group.standings:
        for cell in standing.cells:
            for note in dict.fromkeys(cell.notes):
                whose.setdefault(note, {}).setdefault(standing.title, []).append(cell.seed)
    everyone = {standing.title: len(standing.cells) for standing in group.standings}
    return [
        f"Warning: {note}"
        if {title: len(seeds) for title, seeds in rows.items()} == everyone
        else f"Warning ({_rows_and_seeds(rows)}): {note}"
        for note, rows in whose.items()
    ]


def _rows_and_seeds(rows: Mapping[str, Sequence[int]]) -> str:
    """``"MT, S5Mars; seeds 0, 1 / FixMatch; seed 0"``."""
    titles: dict[tuple[int, ...], list[str]] = {}
    for title, seeds in rows.items():
        titles.setdefault(tuple(sorted(seeds)), []).append(title)
    return " / ".join(
        f"{', '.join(names)}; seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
        for seeds, names in titles.items()
    )


def _distinct(values: Any) -> str:
    known = (value for value in values if value is not None)
    texts = (f"{value:,}" if isinstance(value, int) else str(value) for value in known)
    return " / ".join(dict.fromkeys(texts)) or "–"
