"""Aggregate cells to rows: means over seeds, and differences between rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from s5mars.comparison.intervals import Difference, paired_difference
from s5mars.comparison.results import UNFINISHED, Comparison, Result
from s5mars.text.spread import Summary, summary, summary_of_known


@dataclass(frozen=True)
class Standing:
    """A row at one labelled share, over its finished seeds."""

    row: str
    title: str
    cells: tuple[Result, ...]
    mIoU: Summary  # noqa: N815
    mAcc: Summary | None  # noqa: N815
    classes: Mapping[str, Summary | None]  # IoU; None if the ground truth lacks the class
    # Of mIoU; None for the reference itself or without common seeds.
    to_reference: Difference | None
    # Title of the other row with the highest mean difference to it; None without common seeds.
    best_other: str | None
    to_best_other: Difference | None


@dataclass(frozen=True)
class Group:
    """Rows of one kind at one labelled share."""

    name: str  # "methods", the name of an ablation, or "zero_shot" (table VI)
    share: str
    reference: str | None  # title of the reference row; None if it has no score
    standings: tuple[Standing, ...]
    failed: tuple[Result, ...]
    unfinished: tuple[Result, ...]
    unavailable: tuple[Result, ...] = ()  # weights are missing
    titles: Mapping[str, str] = field(default_factory=dict)  # row → title


def groups_of(comparison: Comparison) -> list[Group]:
    """Return every kind of row at every share, in the order of the request."""
    kinds = dict.fromkeys(str(facts["group"]) for facts in comparison.rows.values())
    return [_group(comparison, kind, share) for kind in kinds for share in _shares(comparison)]


def _shares(comparison: Comparison) -> list[str]:
    lists = sorted(share for share in comparison.shares if share.startswith("list-"))
    return [*sorted(comparison.shares.keys() - {*lists}, key=float), *lists]


def _group(comparison: Comparison, kind: str, share: str) -> Group:
    names = [name for name, facts in comparison.rows.items() if facts["group"] == kind]
    here = [cell for cell in comparison.cells if cell.share == share and cell.row in names]
    of_row = {
        name: tuple(c for c in here if c.row == name and c.mIoU is not None) for name in names
    }
    scores = {name: by_seed(cells) for name, cells in of_row.items() if cells}
    means = {name: summary(list(found.values())) for name, found in scores.items()}
    titles = {name: str(comparison.rows[name]["title"]) for name in names}
    reference = comparison.references.get(kind)
    # The reference may be of another kind: table VI is compared with S5Mars.
    of_reference = by_seed(c for c in comparison.cells if (c.share, c.row) == (share, reference))
    standings = []
    for name, found in scores.items():
        best = _best_other(name, scores)
        compared = of_reference if name != reference else {}
        standings.append(
            Standing(
                row=name,
                title=titles[name],
                cells=of_row[name],
                mIoU=means[name],
                mAcc=summary_of_known(cell.mAcc for cell in of_row[name]),
                classes=_classes(of_row[name]),
                to_reference=paired_difference(found, compared),
                best_other=None if best is None else titles[best],
                to_best_other=None if best is None else paired_difference(found, scores[best]),
            )
        )
    return Group(
        name=kind,
        share=share,
        reference=str(comparison.rows[str(reference)]["title"]) if of_reference else None,
        standings=tuple(standings),
        failed=tuple(cell for cell in here if cell.status == "failed"),
        unfinished=tuple(c for c in here if c.status in UNFINISHED),
        unavailable=tuple(cell for cell in here if cell.status == "unavailable"),
        titles=titles,
    )


def _best_other(name: str, scores: Mapping[str, Mapping[int, float]]) -> str | None:
    # Means are of different seeds for rows that lack some, and one easy seed would win.
    leads = {
        other: difference.mean
        for other, found in scores.items()
        if other != name and (difference := paired_difference(found, scores[name]))
    }
    return max(leads, key=leads.__getitem__, default=None)


def by_seed(cells: Iterable[Result]) -> dict[int, float]:
    """Return the mIoU in percent by seed."""
    return {cell.seed: cell.mIoU for cell in cells if cell.mIoU is not None}


def _classes(cells: tuple[Result, ...]) -> dict[str, Summary | None]:
    names = dict.fromkeys(name for cell in cells for name in cell.classes)
    return {name: summary_of_known(c.classes[name]["iou"] for c in cells) for name in names}
