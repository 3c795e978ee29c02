"""Plan a comparison: check the request against what its folder already contains."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from s5mars.comparison import general, settings
from s5mars.comparison.content import describe_content
from s5mars.comparison.grid import (
    BASELINE,
    METHODS_GROUP,
    Cell,
    Row,
    ablation_rows,
    arguments_of,
    cells_of,
    method_rows,
    refuse_options_of_others,
    with_files_read,
)
from s5mars.comparison.joined import comparison_differences
from s5mars.comparison.results import FILE, Comparison, Result, read_comparison
from s5mars.data.dataset import Dataset
from s5mars.data.layouts import open_dataset
from s5mars.data.partition import POOLS, as_fraction, draw_partition, pool
from s5mars.errors import UserError, require_limit
from s5mars.evaluation.protocols import find_protocol
from s5mars.files.locking import is_empty
from s5mars.models.encoders import architecture
from s5mars.proposals.prepare import check_given
from s5mars.settings.ablations import ABLATED
from s5mars.settings.networks import DeepLabOptions, network_options
from s5mars.settings.parsing import Training, given, parse_training
from s5mars.settings.used import require_used
from s5mars.training.automatic import complete
from s5mars.types import Method

_CHOSEN = ("model", "resolution", "crop")  # by the machine and the data, if not given


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to compare, and how."""

    out: Path  # rows, shares and seeds can be added to an existing comparison
    arguments: Sequence[str]  # of ``s5mars train``, for every cell
    methods: Sequence[str | Method] = ()  # names or objects, or ``("all",)``
    ablation: str | None = None  # name of an ablation of S5Mars
    table_vi: bool = False  # add the rows of table VI
    weights: general.GeneralWeights = field(default_factory=general.GeneralWeights)  # of these rows
    labelled: Sequence[str] = ("1.0",)  # shares of the train split, or list files
    seeds: Sequence[int] = (0,)  # of image order, crops and random layers
    split: str = "test"  # that is scored
    protocol: str = "full"  # of the evaluation: ``full`` or ``paper``
    jobs: int = 1  # number of cells that run in parallel
    note: str | None = None  # text for the tables, e.g. what was tuned
    retry_failed: bool = False
    keep_checkpoints: bool = False  # keep ``last.ckpt`` of scored cells

    def __post_init__(self) -> None:
        if not self.methods and self.ablation is None and not self.table_vi:
            raise UserError(
                "nothing to compare; give --methods (all, or names), --ablation or --table-vi"
            )
        if self.weights != general.GeneralWeights() and not self.table_vi:
            raise UserError("--sam-weights, --clip-weights and --san-weights require --table-vi")
        require_limit("at least 1", **{"--jobs": self.jobs})
        if self.split == "train":
            raise UserError(
                "--split must not be train, because scores on images that the models were trained "
                "on say nothing about others; use val or test"
            )
        find_protocol(self.protocol)


@dataclass(frozen=True)
class Plan:
    """The requested cells, and the comparison with them and the existing cells."""

    cells: tuple[Cell, ...]
    comparison: Comparison


def plan(request: Request) -> Plan:
    """Check the request and plan its cells; write nothing.

    Raises:
        UserError, MissingFileError: if settings or data are invalid, or the folder contains a
            comparison with other settings.
    """
    rows = _rows(request)
    cells = cells_of(rows, request.labelled, request.seeds)
    planned = _planned(request, rows, cells)
    for row in rows:
        changed = planned.rows[row.name]["settings"]["training"]
        model = changed.get("model", planned.settings["training"]["model"])
        if network_options(model) is DeepLabOptions:
            architecture(model)  # raises here and not in each cell
    return Plan(tuple(cells), planned)


def _rows(request: Request) -> tuple[Row, ...]:
    rows = method_rows(request.methods)
    if request.ablation is not None:
        rows += ablation_rows(request.ablation)
    if request.table_vi:
        rows += general.table_vi_rows(request.weights, request.out)
    return rows


def with_files(request: Request) -> Request:
    """Replace the settings files of a request by their options, see ``grid.with_files_read``.

    Raises:
        UserError, MissingFileError: if a file cannot be read or has another content.
    """
    methods = {row.method for row in _rows(request)}
    return replace(request, arguments=with_files_read(request.arguments, methods))


def with_choices(request: Request) -> tuple[Request, str]:
    """Add encoder, resolution and crop where they are not given, as ``s5mars train`` chooses them.

    A comparison that exists keeps its own, whatever the machine. The rows of table VI bring their
    encoders, so that nothing is chosen for them.

    Returns:
        The request, and what was chosen and why, for the user.

    Raises:
        UserError, MissingFileError: as ``plan``.
    """
    known = given(request.arguments, (*_CHOSEN, "steps", "epochs", "data"))
    missing = [name for name in _CHOSEN if name not in known]
    if (
        request.table_vi
        or not missing
        or "data" not in known
        or not known.keys() & {"steps", "epochs"}
    ):
        return request, ""
    if (old := _old(request.out)) is not None:
        recorded = old.settings["training"]
        added = [f"--{name}={recorded[name]}" for name in missing if name in recorded]
        return replace(request, arguments=[*request.arguments, *added]), ""
    (row, *_) = (*method_rows(request.methods), *method_rows([ABLATED]))
    words = [
        *arguments_of(row, request.arguments), f"--method={row.method}", f"--out={request.out}"
    ]  # fmt: skip
    completed, chosen = complete(words, own=row.own)
    return replace(request, arguments=[*request.arguments, *completed[len(words) :]]), chosen


def train_arguments(request: Request, row: Row, cell: Cell, out: Path) -> list[str]:
    """Return the arguments of ``s5mars train`` for one cell."""
    return [
        *arguments_of(row, request.arguments),
        f"--method={row.method}",
        *([f"--ablation={row.ablation}"] if row.ablation else []),
        f"--labelled={cell.labelled}",
        f"--seed={cell.seed}",
        f"--out={out}",
    ]


def _training(request: Request, row: Row, cell: Cell) -> Training:
    training = parse_training(train_arguments(request, row, cell, request.out), own=row.own)
    if training.config.folds:
        raise UserError(
            "--folds is for s5mars train; leave it out, because a comparison scores one split"
        )
    return training


def _planned(request: Request, rows: Sequence[Row], cells: Sequence[Cell]) -> Comparison:
    """Return the comparison with the existing cells, and the new ones as waiting.

    Raises:
        UserError: if settings differ from those of the folder, or no row uses an option.
        MissingFileError: if there are no objects where the options say.
    """
    base = _training(request, method_rows([BASELINE])[0], cells[0])
    dataset = open_dataset(base.config.data, splits=base.config.splits)
    for split in (request.split, base.config.select_on):
        dataset.split(split)
    common = settings.describe_comparison(
        dataset, base, split=request.split, protocol=request.protocol
    )
    _check_lists(dataset, cells, base)
    content = describe_content(dataset, base.config)
    trainings = {row.name: _training(request, row, cells[0]) for row in rows}
    old = _old(request.out)
    if old is None:  # rows that are there already may use what these rows do not
        refuse_options_of_others(rows, request.arguments)
        require_used(base.config, {name: each.method.needs for name, each in trainings.items()})
    if base.config.objects is not None:
        check_given(base.config.objects)
    facts: Mapping[str, Any] = {
        row.name: settings.facts_of(row, trainings[row.name], base) for row in rows
    }
    shares: Mapping[str, Any] = {
        cell.share: settings.describe_share(cell, dataset) for cell in cells
    }
    # A round trip through JSON, so that lists and tuples are equal.
    common, facts, shares = json.loads(json.dumps([common, facts, shares]))
    planned = Comparison(
        settings=common,
        rows=facts,
        shares=shares,
        references=_references(request, rows, facts, base, cells[0]),
        content=content,
        note=request.note or "",
    )
    if old is not None:
        old = _without_unavailable(old, facts)
        if different := comparison_differences(old, planned):
            raise UserError(
                f"{request.out} contains a comparison with other settings "
                f"({'; '.join(different)}), and one table never mixes settings; "
                "choose another --out"
            )
        planned = replace(
            planned,
            rows={**old.rows, **facts},
            shares={**old.shares, **shares},
            references={**planned.references, **old.references},
            content={**content, **old.content},
            note=old.note if request.note is None else request.note,
            cells=old.cells,
        )
    references = dict(planned.references)
    if BASELINE in planned.rows:
        references[METHODS_GROUP] = BASELINE
    if general.GROUP in references and ABLATED in planned.rows:
        references[general.GROUP] = ABLATED
    known_cells = {cell.key: cell for cell in planned.cells}
    for cell in cells:
        known_cells.setdefault(
            cell.key,
            Result(
                row=cell.row.name,
                share=cell.share,
                seed=cell.seed,
                folder=cell.path.as_posix(),
                fingerprint=planned.fingerprint(cell.row.name, cell.share),
            ),
        )
    return replace(planned, references=references, cells=tuple(known_cells.values()))


def _check_lists(dataset: Dataset, cells: Sequence[Cell], base: Training) -> None:
    """Check the lists of labelled images as ``train`` does, and before the first cell."""
    for labelled in dict.fromkeys(cell.labelled for cell in cells):
        if as_fraction(labelled) is None:
            draw_partition(dataset, labelled, skip_bad=base.config.skip_bad)
    if base.config.pool not in POOLS:
        pool(dataset, base.config.pool)


def _without_unavailable(old: Comparison, facts: Mapping[str, Any]) -> Comparison:
    """Drop requested rows that had no weights, because their settings may change with weights."""
    measured = {cell.row for cell in old.cells if cell.status != "unavailable"}
    dropped = {name for name in old.rows if name in facts and name not in measured}
    return replace(
        old,
        rows={name: row for name, row in old.rows.items() if name not in dropped},
        cells=tuple(cell for cell in old.cells if cell.row not in dropped),
    )


def _references(
    request: Request, rows: Sequence[Row], facts: Mapping[str, Any], base: Training, cell: Cell
) -> dict[str, str]:
    """Return the reference row of each group.

    It is the first row, except in an ablation that has the full method as one of its rows.
    """
    references = {row.group: row.name for row in reversed(rows)}
    if request.ablation is not None:
        (full,) = method_rows([ABLATED])
        settings_of_full = settings.describe_row(_training(request, full, cell), base)
        fields = json.loads(json.dumps(settings_of_full[ABLATED]))
        for row in rows:
            if row.group == request.ablation and facts[row.name]["settings"][ABLATED] == fields:
                references[row.group] = row.name
    return references


def _old(out: Path) -> Comparison | None:
    if (out / FILE).is_file():
        return read_comparison(out)
    if out.exists() and (not out.is_dir() or not is_empty(out)):
        raise UserError(f"{out} contains files that are not a comparison; choose another --out")
    return None
