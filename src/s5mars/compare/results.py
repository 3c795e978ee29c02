"""``comparison.json``: what a comparison is of, and how each of its cells ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from s5mars.compare.settings import digest, fingerprint
from s5mars.errors import MissingFileError, UserError
from s5mars.files import below, write_json
from s5mars.files.reading import object_in, read_object, reading

FILE = "comparison.json"
FORMAT = 1
STOPPED = 75
"""Exit code of a cell's process whose run was asked to stop, and has saved."""

Status = Literal["waiting", "running", "stopped", "failed", "done", "unavailable"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One cell. Scores are in percent; None where there is no score."""

    row: str
    share: str
    seed: int
    folder: str  # of the run, below the folder of the comparison
    fingerprint: str  # of the settings that it was made with
    status: Status = "waiting"
    reason: str = ""  # why it failed, or cannot be measured here
    mIoU: float | None = None  # noqa: N815
    mAcc: float | None = None  # noqa: N815
    pixel_accuracy: float | None = None
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # iou, acc, support
    curve: Sequence[Sequence[float | None]] = ()  # (step, validation mIoU)
    best_step: int | None = None
    seconds: float | None = None  # of training
    elapsed: float = 0.0  # seconds from start to score, over all parts that were not killed
    network: str = ""  # the one that was scored: teacher or student
    scored_images: int | None = None
    pool_crops: int | None = None  # that training saw, over the whole run
    labelled_images: int | None = None
    partition: str = ""  # hash of the labelled images' names
    encoder_weights: str = ""
    notes: Sequence[str] = ()

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from the others."""
        return self.row, self.share, self.seed

    @property
    def name(self) -> str:
        """Such as ``s5mars 0.125 seed 0``."""
        return f"{self.row} {self.share} seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The whole file."""

    settings: Mapping[str, Any]  # of every cell, see ``settings.describe_comparison``
    rows: Mapping[str, Mapping[str, Any]]  # name → title, group, method, settings
    shares: Mapping[str, Mapping[str, Any]]
    references: Mapping[str, str]  # group → the row that its others are compared with
    cells: tuple[Result, ...] = ()
    note: str = ""

    def fingerprint(self, row: str, share: str) -> str:
        """What a cell of this row and share must carry."""
        return fingerprint(self.settings, self.rows[row]["settings"], self.shares[share])

    def done(self) -> list[Result]:
        """The cells that have a score."""
        return [cell for cell in self.cells if cell.status == "done"]

    def with_status(self, *statuses: Status) -> list[Result]:
        """The cells of these statuses."""
        return [cell for cell in self.cells if cell.status in statuses]


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write ``comparison.json`` whole."""
    write_json(folder / FILE, {"format": FORMAT, **asdict(comparison)})


def read_comparison(folder: Path) -> Comparison:
    """Read ``comparison.json``.

    Raises:
        MissingFileError: if there is none.
        UserError: if it is damaged, or holds cells of other settings than it states.
    """
    path = folder / FILE
    if not path.is_file():
        raise MissingFileError(
            f"{folder} holds no {FILE}: give the folder of an `s5mars compare --out`"
        )
    with reading(path, kind="comparison", way_out="copy it again"):
        content = object_in(path)
        version = content.pop("format", None)
        if version != FORMAT:
            raise UserError(f"{path}: format {version!r}, this version reads {FORMAT}")
        cells = tuple(Result(**cell) for cell in content.pop("cells"))
        comparison = Comparison(**content, cells=cells)
        for cell in cells:
            below(folder, cell.folder, source=path)
        wrong = [c for c in cells if c.fingerprint != comparison.fingerprint(c.row, c.share)]
    if wrong:
        raise UserError(
            f"{path}: {', '.join(cell.name for cell in wrong)} were made with other settings "
            "(data, protocol, steps or a training option) than the file states: scores of "
            "different settings are never put in one table"
        )
    _same_partitions(path, comparison)
    return comparison


def _same_partitions(path: Path, comparison: Comparison) -> None:
    """Differences are paired by seed, which is fair only where the labels are the same."""
    seen: dict[tuple[str, int], Result] = {}
    for cell in comparison.done():
        first = seen.setdefault((cell.share, cell.seed), cell)
        if first.partition != cell.partition:
            raise UserError(
                f"{path}: {first.name} and {cell.name} were trained on different labelled images: "
                "their scores do not compare"
            )


def is_trained(run: Path) -> bool:
    """Whether a run folder holds the scores and the weights of a run that reached its end."""
    try:
        metrics = read_object(run / "metrics.json")
        whole = metrics["steps"] >= metrics["total_steps"]
    except (OSError, UserError, KeyError, TypeError):
        return False
    return bool(whole) and all((run / f"best.{e}").is_file() for e in ("json", "safetensors"))


def saved_states(run: Path) -> list[Path]:
    """What a run can go on from: its own ``last.ckpt``, and those of its stages."""
    return [*run.glob("last.ckpt"), *run.glob("stages/*/last.ckpt")]


def evaluation_path(run: Path, *, split: str, protocol: str) -> Path:
    """Where ``s5mars evaluate`` leaves the scores of a run."""
    return run / f"evaluation-{split}-{protocol}.json"


def read_scores(run: Path, *, split: str, protocol: str) -> dict[str, Any]:
    """The fields of ``Result`` that a trained and evaluated run fills.

    Raises:
        MissingFileError, UserError: if a file is missing or damaged.
    """
    path = run / "metrics.json"
    with reading(path, kind="run", way_out=f"remove the folder {run}"):
        metrics = object_in(path)
        evaluation = object_in(evaluation_path(run, split=split, protocol=protocol))
        return {
            "mIoU": evaluation["mIoU"],
            "mAcc": evaluation["mAcc"],
            "pixel_accuracy": evaluation["pixel_accuracy"],
            "classes": evaluation["classes"],
            "curve": [[e["step"], e["validation"]["mIoU"]] for e in metrics["history"]],
            "best_step": metrics["best"]["step"],
            "seconds": metrics["seconds"],
            "network": evaluation["protocol"]["network"],
            "pool_crops": metrics["pool_crops"],
            "scored_images": evaluation["protocol"]["images"],
            "labelled_images": metrics["labelled_images"],
            "partition": digest((run / "splits" / "labelled.txt").read_text("utf-8").splitlines()),
            "encoder_weights": metrics["encoder_weights"],
            "notes": metrics["notes"],
        }
