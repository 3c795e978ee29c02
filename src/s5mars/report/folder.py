"""Read a run folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s5mars.classes import Taxonomy
from s5mars.errors import MissingFileError, UserError, as_typed
from s5mars.files.reading import object_in, read_object, read_text, reading
from s5mars.files.run_folder import CONFIG, FACTS, FOLDS, METRICS, VERSIONS, run_to_resume
from s5mars.methods import method_title
from s5mars.models.box import installed_folder
from s5mars.text.numbers import number
from s5mars.training.notes import Note, read_notes


@dataclass(frozen=True)
class Run:
    """The content of a run folder; optional parts that are missing are empty."""

    folder: Path
    metrics: Mapping[str, Any]
    best: Mapping[str, Any]
    taxonomy: Taxonomy
    config: str = ""
    versions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """The key of the method, e.g. ``"s5mars"``."""
        return str(self.metrics.get("method") or "unknown method")

    @property
    def title(self) -> str:
        """The display name of the method, e.g. ``"S5Mars"``."""
        return method_title(self.method)

    @property
    def data(self) -> Path | None:
        """The data folder that the run was trained on, or where it is now."""
        value = self.metrics.get("data")
        return Path(str(value)) if value else None

    @property
    def splits(self) -> Path | None:
        """The folder of its split lists, or where it is now; None for that of the data."""
        value = self.metrics.get("splits")
        return Path(str(value)) if value else None

    @property
    def data_name(self) -> str:
        """The name of the data folder."""
        return "unknown data" if self.data is None else self.data.resolve().name

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """The entries that have a step, sorted by it."""
        entries = self.metrics.get("history")
        if not isinstance(entries, list):
            return []
        known = [e for e in entries if isinstance(e, Mapping) and number(e.get("step")) is not None]
        return sorted(known, key=lambda entry: float(entry["step"]))

    @property
    def selection_split(self) -> str:
        """The split that the kept checkpoint was chosen on; "" if it was not recorded."""
        return str(self.metrics.get("split_for_selection") or "")

    @property
    def notes(self) -> list[Note]:
        """Remarks and warnings of the training."""
        return read_notes(self.metrics)

    @property
    def command(self) -> str:
        """The exact command that started the run; "" if it was not recorded."""
        words = self.versions.get("command")
        return shlex.join(map(str, words)) if isinstance(words, list) else ""


def read_run(folder: Path | str, *, data: Path | None = None, splits: Path | None = None) -> Run:
    """Read a run folder.

    Args:
        folder: run folder of ``s5mars train``. ``metrics.json`` and ``best.json`` are required,
            ``config.yaml`` and ``versions.json`` are optional.
        data: where its data is now, if it was moved.
        splits: where its split lists are now.

    Raises:
        MissingFileError: if the folder or one of the two required files is missing.
        UserError: if one of the files is damaged.
    """
    folder = Path(folder)
    if installed_folder(folder) and not folder.is_dir():
        raise UserError(
            f"{folder} is installed without the records of its training; "
            f"`s5mars models {folder}` prints its card"
        )
    if not folder.is_dir():
        raise MissingFileError(
            f"{folder}: no such run folder; `s5mars train --out {as_typed(folder)}` creates one"
        )
    if (folder / FOLDS).is_file():
        raise UserError(
            f"{folder} is a cross-validation: give its runs instead, such as {folder / 'fold-1'}"
        )
    if (folder / "comparison.json").is_file():
        run = min(folder.glob(f"cells/**/{METRICS}"), default=None)
        raise UserError(
            f"{folder} is a comparison: `s5mars table {as_typed(folder)}` prints its scores"
            + ("" if run is None else f"; for a report give its runs, such as {run.parent}")
        )
    missing = [name for name in (METRICS, FACTS) if not (folder / name).is_file()]
    if missing:
        # `train --out` refuses the folder of a run that has begun.
        begun = (folder / CONFIG).is_file()
        option = (
            f"--resume {as_typed(run_to_resume(folder))}" if begun else f"--out {as_typed(folder)}"
        )
        raise MissingFileError(
            f"{folder} is not a finished run: {' and '.join(missing)} missing; "
            f"`s5mars train {option}` writes them"
        )
    with reading(folder / FACTS, kind="run", remedy="train the run again"):
        best = object_in(folder / FACTS)
        taxonomy = Taxonomy.from_dict(best["taxonomy"])
    config = folder / CONFIG
    return Run(
        folder=folder,
        metrics=_json(folder / METRICS)
        | {key: str(path) for key, path in (("data", data), ("splits", splits)) if path},
        best=best,
        taxonomy=taxonomy,
        config=read_text(config) if config.is_file() else "",
        versions=_json(folder / VERSIONS) if (folder / VERSIONS).is_file() else {},
    )


def _json(path: Path) -> dict[str, Any]:
    return read_object(path, remedy="remove it, or train the run again")
