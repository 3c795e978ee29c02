"""Write the tables of a comparison as Markdown, LaTeX, HTML or CSV."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from s5mars.comparison.blocks import Block, blocks_of
from s5mars.comparison.joined import read_joined
from s5mars.comparison.results import Comparison
from s5mars.comparison.standings import Standing, groups_of
from s5mars.comparison.words import missing_lines, protocol_lines
from s5mars.errors import require_choice
from s5mars.files.spreadsheet import csv_text
from s5mars.report.render import rendered


def table(source: Path | Sequence[Path], *, form: str = "md", reference: str | None = None) -> str:
    """Return the tables of a comparison as text.

    Args:
        source: folder of a comparison, or a copy of its ``comparison.json``; several that have the
            same settings give one table.
        form: a key of ``FORMS``.
        reference: row that the others of its kind are compared with; None keeps that of the
            comparison.

    Raises:
        MissingFileError: if there is no comparison.
        UserError: if it is damaged, mixes settings or has no finished cell, or ``form`` or
            ``reference`` is unknown.
    """
    require_choice(form, FORMS, name="--format")
    sources = [source] if isinstance(source, Path) else source
    return FORMS[form](read_joined(sources, reference=reference))


def markdown(comparison: Comparison) -> str:
    """Return the tables as GitHub Markdown."""
    return markdown_of(blocks_of(comparison))


def markdown_of(blocks: Sequence[Block]) -> str:
    """Return any tables as GitHub Markdown."""
    parts = []
    for block in blocks:
        rows = [_bar(block.header), _bar(["---"] * len(block.header))]
        rows += [_bar(row) for row in block.rows]
        items = [f"- {line}" for line in block.lines]
        parts.append("\n".join([f"### {block.title}", "", *rows, "", *items]))
    return "\n\n".join(parts) + "\n"


def _bar(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def latex(comparison: Comparison) -> str:
    """Return one ``table`` environment per table; it needs the package ``booktabs``."""
    return "\n\n".join(_environment(block) for block in blocks_of(comparison)) + "\n"


def _environment(block: Block) -> str:
    def row(cells: Sequence[str]) -> str:
        return " & ".join(_tex(cell) for cell in cells) + r" \\"

    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(block.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(block.header) - 1)}}}",
            r"\toprule",
            row(block.header),
            r"\midrule",
            *[row(cells) for cells in block.rows],
            r"\bottomrule",
            r"\end{tabular}",
            *[rf"\par\footnotesize {_tex(line)}" for line in block.lines],
            r"\end{table}",
        ]
    )


_TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
        "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        "±": r"$\pm$", "²": r"$^2$", "×": r"$\times$", "–": "--", "μ": r"$\mu$", "σ": r"$\sigma$",
    }
)  # fmt: skip


def _tex(text: str) -> str:
    return text.translate(_TEX)


def page(comparison: Comparison) -> str:
    """Return one self-contained HTML page."""
    return rendered("table.html.j2", blocks_of(comparison))


def numbers(comparison: Comparison) -> str:
    """Return CSV with one line per row and share; comments begin with ``#``."""
    groups = groups_of(comparison)
    blocks_of(comparison)  # raises if there are no scores
    classes = list(comparison.settings["data"]["classes"])
    rows = [
        [
            group.name,
            group.share,
            standing.row,
            *_fields(standing, group.reference),
            *(_field(s.mean if (s := standing.classes.get(n)) else None) for n in classes),
        ]
        for group in groups
        for standing in group.standings
    ]
    lines = [
        line
        for group in groups
        for line in (
            *missing_lines(group),
            *(protocol_lines(comparison, group) if group.standings else ()),
        )
    ]
    table = csv_text([[*_COLUMNS, *(f"IoU {name}" for name in classes)], *rows])
    return table + "".join(f"# {line}\n" for line in dict.fromkeys(lines))


_COLUMNS = (
    "group", "share", "row", "seeds", "mIoU", "mIoU sd", "mAcc", "mAcc sd", "reference",
    "to reference", "to reference low", "to reference high", "best other", "to best other",
    "to best other low", "to best other high",
)  # fmt: skip


def _fields(standing: Standing, reference: str | None) -> list[str]:
    accuracy = standing.mAcc
    fields = [
        str(standing.mIoU.n),
        _field(standing.mIoU.mean),
        _field(standing.mIoU.spread),
        _field(accuracy.mean if accuracy else None),
        _field(accuracy.spread if accuracy else None),
    ]
    for other, found in (
        (reference, standing.to_reference), (standing.best_other, standing.to_best_other)
    ):  # fmt: skip
        ends = (found.mean, found.low, found.high) if found else (None, None, None)
        fields += [other or "", *(_field(end) for end in ends)]
    return fields


def _field(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


FORMS: Mapping[str, Callable[[Comparison], str]] = {
    "md": markdown,
    "latex": latex,
    "html": page,
    "csv": numbers,
}
