"""``comparison.json``: the settings of a comparison and the results of its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from s5mars.comparison.settings import digest, fingerprint, with_new_options
from s5mars.errors import MissingFileError, UserError
from s5mars.files import below, write_json
from s5mars.files.reading import object_in, read_text, reading, require_format
from s5mars.files.run_folder import CHECKPOINT, LABELLED, METRICS, evaluation_path
from s5mars.training.notes import read_notes

FILE = "comparison.json"
FORMAT = 1
STOPPED = 75
"""Exit code of a cell's process that was told to stop and has saved."""

_OF_TRAINING = ("seconds", "pool_crops", "labelled_images", "encoder_weights")

Status = Literal["waiting", "running", "stopped", "failed", "done", "unavailable"]
UNFINISHED: frozenset[Status] = frozenset({"waiting", "running", "stopped"})


@dataclass(frozen=True, kw_only=True)
class Result:
    """Result of one cell. Scores are in percent; None without a score."""

    row: str
    share: str
    seed: int
    folder: str  # of the run, relative to the folder of the comparison
    fingerprint: str  # of the settings of the cell
    status: Status = "waiting"
    reason: str = ""  # why it failed or cannot be measured
    mIoU: float | None = None  # noqa: N815
    mAcc: float | None = None  # noqa: N815
    pixel_accuracy: float | None = None
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # iou, acc, support
    curve: Sequence[Sequence[float | None]] = ()  # (step, validation mIoU)
    best_step: int | None = None
    seconds: float | None = None  # of training
    elapsed: float = 0.0  # seconds from start to score, without parts that were killed
    network: str = ""  # scored network: teacher or student
    scored_images: int | None = None
    pool_crops: int | None = None  # number of pool crops in the whole run
    labelled_images: int | None = None
    partition: str = ""  # hash of the labelled images' names
    encoder_weights: str = ""
    notes: Sequence[str] = ()

    @property
    def key(self) -> tuple[str, str, int]:
        """Unique key: row, share, seed."""
        return self.row, self.share, self.seed

    @property
    def name(self) -> str:
        """Display name, e.g. ``s5mars 0.125 seed 0``."""
        return f"{self.row} {self.share} seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Content of ``comparison.json``."""

    settings: Mapping[str, Any]  # common to all cells, from ``settings.describe_comparison``
    rows: Mapping[str, Mapping[str, Any]]  # name → title, group, method, settings
    shares: Mapping[str, Mapping[str, Any]]
    references: Mapping[str, str]  # group → its reference row
    cells: tuple[Result, ...] = ()
    content: Mapping[str, str] = field(default_factory=dict)  # from ``content.describe_content``
    note: str = ""

    def fingerprint(self, row: str, share: str) -> str:
        """Return the fingerprint of the cells of this row and share."""
        return fingerprint(self.settings, self.rows[row]["settings"], self.shares[share])

    def done(self) -> list[Result]:
        """Return the cells that have a score."""
        return [cell for cell in self.cells if cell.status == "done"]

    def with_status(self, *statuses: Status) -> list[Result]:
        """Return the cells with these statuses."""
        return [cell for cell in self.cells if cell.status in statuses]


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write ``comparison.json`` atomically."""
    write_json(folder / FILE, {"format": FORMAT, **asdict(comparison)})


def read_comparison(source: Path) -> Comparison:
    """Read ``comparison.json`` from the folder of a comparison, or a copy of this file.

    Raises:
        MissingFileError: if it does not exist.
        UserError: if it is damaged, or cells have other settings than it states.
    """
    path = source if source.is_file() else source / FILE
    if not path.is_file():
        raise MissingFileError(f"{source} has no {FILE}; give the --out folder of `s5mars compare`")
    with reading(path, kind="comparison", remedy="copy it again"):
        content = object_in(path)
        require_format(path, content.pop("format", None), FORMAT)
        cells = tuple(Result(**cell) for cell in content.pop("cells"))
        comparison = Comparison(**content, cells=cells)
        for cell in cells:
            below(path.parent, cell.folder, source=path)
        wrong = [c for c in cells if c.fingerprint != comparison.fingerprint(c.row, c.share)]
        current = _with_new_options(comparison)
    if wrong:
        raise UserError(
            f"{path}: {', '.join(cell.name for cell in wrong)} were trained with other settings "
            "(data, protocol, steps or a training option) than the file states, and a table "
            "cannot mix settings; compare them in another --out"
        )
    check_partitions(str(path), comparison)
    return current


def _with_new_options(read: Comparison) -> Comparison:
    """A comparison with the options that were added since it was written, and its fingerprints."""

    def row_now(row: Mapping[str, Any]) -> dict[str, Any]:
        changed = with_new_options(row["settings"].get("training", {}), of_row=True)
        return {**row, "settings": {**row["settings"], "training": changed}}

    new = replace(
        read,
        settings={**read.settings, "training": with_new_options(read.settings["training"])},
        rows={name: row_now(row) for name, row in read.rows.items()},
    )
    if (new.settings, new.rows) == (read.settings, read.rows):
        return read
    fingerprinted = (replace(c, fingerprint=new.fingerprint(c.row, c.share)) for c in new.cells)
    return replace(new, cells=tuple(fingerprinted))


def check_partitions(source: str, comparison: Comparison) -> None:
    """Check that cells with one seed share their labels, as paired differences require.

    Raises:
        UserError: if they do not; it begins with ``source``.
    """
    seen: dict[tuple[str, int], Result] = {}
    for cell in comparison.done():
        first = seen.setdefault((cell.share, cell.seed), cell)
        if first.partition != cell.partition:
            raise UserError(
                f"{source}: {first.name} and {cell.name} were trained on different labelled "
                "images: their scores are not comparable"
            )


def saved_states(run: Path) -> list[Path]:
    """Checkpoints from which a run can be resumed: ``last.ckpt`` and those of its stages."""
    return [*run.glob(CHECKPOINT), *run.glob(f"stages/*/{CHECKPOINT}")]


def read_scores(run: Path, *, split: str, protocol: str) -> dict[str, Any]:
    """Read the fields of ``Result`` from a trained and evaluated run.

    Raises:
        MissingFileError, UserError: if a file is missing or damaged.
    """
    path = run / METRICS
    with reading(path, kind="run", remedy=f"remove the folder {run}"):
        metrics = object_in(path)
        evaluation = object_in(evaluation_path(run, split=split, protocol=protocol))
        return {
            **{key: evaluation[key] for key in ("mIoU", "mAcc", "pixel_accuracy", "classes")},
            **{key: metrics[key] for key in _OF_TRAINING},
            "notes": [note.text for note in read_notes(metrics)],
            "curve": [[e["step"], e["validation"]["mIoU"]] for e in metrics["history"]],
            "best_step": metrics["best"]["step"],
            "network": evaluation["protocol"]["network"],
            "scored_images": evaluation["protocol"]["images"],
            "partition": digest(read_text(run / LABELLED).splitlines()),
        }
