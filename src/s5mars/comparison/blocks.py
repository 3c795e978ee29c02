"""The cells of the tables as text, independent of the output format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s5mars.comparison import general, paper, words
from s5mars.comparison.grid import METHODS_GROUP
from s5mars.comparison.intervals import Difference
from s5mars.comparison.results import Comparison
from s5mars.comparison.standings import Group, Standing, groups_of
from s5mars.errors import UserError
from s5mars.text.spread import Summary

ABSENT = "-"
NO_DIFFERENCE = "no difference shown"


@dataclass(frozen=True)
class Block:
    """A table: its title, its cells, and the lines below it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...] = ()


def blocks_of(comparison: Comparison) -> list[Block]:
    """Return the tables of a comparison: for each share the scores, then the classes (table V).

    Raises:
        UserError: if no cell is finished.
    """
    if not comparison.done() and not comparison.with_status("unavailable"):
        failed = comparison.with_status("failed")
        why = f"; the first failed with: {failed[0].reason}" if failed else ""
        raise UserError(f"no cell of the comparison has finished{why}")
    blocks = []
    for group in groups_of(comparison):
        if not group.standings:
            gone = words.missing_lines(group)
            if gone:
                rows = tuple(_unavailable(group, 2))
                header = ("row", "mIoU") if rows else ("row",)
                blocks.append(Block(_title("Scores", group), header, rows, tuple(gone)))
            continue
        protocol = words.protocol_lines(comparison, group)
        blocks += [_scores(group, protocol), *_of_paper(comparison, group)]
        blocks += [_classes(group, protocol), *_classes_of_paper(comparison, group)]
    return blocks


def _scores(group: Group, protocol: Sequence[str]) -> Block:
    header = ["row", "seeds", "mIoU", "mAcc"]
    if group.reference is not None:
        header.append(f"to {group.reference}")
    header.append("to the best other row")
    rows = []
    for standing in group.standings:
        row = [
            standing.title,
            str(standing.mIoU.n),
            str(standing.mIoU),
            _spread(standing.mAcc),
        ]
        if group.reference is not None:
            is_reference = standing.title == group.reference
            row.append(ABSENT if is_reference else difference_text(standing.to_reference))
        row.append(_to_best_other(standing) if len(group.standings) > 1 else ABSENT)
        rows.append(tuple(row))
    rows += _unavailable(group, len(header))
    lines = [*words.reading_lines(group), *words.missing_lines(group), *protocol]
    return Block(_title("Scores", group), tuple(header), tuple(rows), tuple(lines))


def _to_best_other(standing: Standing) -> str:
    other = "" if standing.best_other is None else f"{standing.best_other}: "
    return other + difference_text(standing.to_best_other)


def _unavailable(group: Group, columns: int) -> list[tuple[str, ...]]:
    scored = {standing.row for standing in group.standings}
    names = dict.fromkeys(cell.row for cell in group.unavailable if cell.row not in scored)
    blank = [ABSENT] * (columns - 2)
    return [(group.titles[name], *blank[:1], general.UNAVAILABLE, *blank[1:]) for name in names]


def _classes(group: Group, protocol: Sequence[str]) -> Block:
    names = list(dict.fromkeys(n for s in group.standings for n in s.classes))
    rows = tuple(
        (
            standing.title,
            *(_spread(standing.classes.get(name)) for name in names),
            str(standing.mIoU),
        )
        for standing in group.standings
    )
    absent = [n for n in names if all(s.classes.get(n) is None for s in group.standings)]
    lines = ["IoU in percent, mean ± standard deviation over seeds."]
    if absent:
        lines.append(
            "Absent from the ground truth, and excluded from the mean: "
            f"{', '.join(absent)} ({ABSENT})."
        )
    return Block(
        _title("IoU by class", group),
        ("row", *names, "mIoU"),
        rows,
        (*lines, *words.missing_lines(group), *protocol),
    )


def _of_paper(comparison: Comparison, group: Group) -> list[Block]:
    data = comparison.settings["data"]
    if group.name == METHODS_GROUP:
        table = paper.paper_scores(data, group.share)
    else:
        table = paper.paper_ablation(data, group.share, group.name)
    return _paper_blocks(table, group)


def _classes_of_paper(comparison: Comparison, group: Group) -> list[Block]:
    if group.name != METHODS_GROUP:
        return []
    return _paper_blocks(paper.paper_classes(comparison.settings["data"], group.share), group)


def _paper_blocks(table: paper.PaperTable | None, group: Group) -> list[Block]:
    if table is None:
        return []
    return [
        Block(
            f"The paper's numbers, not measured here: {table.name}, share {group.share}",
            ("row", *table.header),
            tuple((row, *(f"{v:.2f}" for v in values)) for row, values in table.rows.items()),
            (
                f"As published, on {table.data}: ResNet-50, 240 epochs of batch 8, crop 512, "
                "scored on centre crops of 1024, one run each. The paper does not say which split "
                "chose the checkpoints; its released code uses the test split.",
            ),
        )
    ]


def _spread(found: Summary | None) -> str:
    return ABSENT if found is None else str(found)


def difference_text(found: Difference | None) -> str:
    """``"+1.20 [-0.40, +2.80], no difference shown"``."""
    if found is None:
        return "no common seed"
    if found.low is None or found.high is None:
        return f"{found.mean:+.2f} (one seed, no interval)"
    text = f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    return text if found.shown else f"{text}, {NO_DIFFERENCE}"


def _title(what: str, group: Group) -> str:
    kind = {METHODS_GROUP: "", general.GROUP: " of general models (table VI)"}.get(
        group.name, f" of the ablation {group.name}"
    )
    return f"{what}{kind}, labelled share {group.share}"
