"""Which samples a run reads, and for which of them labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from s5mars.config import TrainConfig
from s5mars.data.audit import readable, report_skipped
from s5mars.data.dataset import Dataset
from s5mars.data.partition import labelled_partition, pool, withhold
from s5mars.files import write_text
from s5mars.types import Method, Sample


@dataclass(frozen=True)
class Streams:
    """The samples of a run."""

    labelled: tuple[Sample, ...]
    pool: tuple[Sample, ...] | None  # without the masks of images outside the partition
    selection: tuple[Sample, ...]  # what chooses the best checkpoint
    skipped: int = 0  # unreadable files that were left out

    def write(self, folder: Path) -> None:
        """Write the names, one list a stream, so that the run can be repeated exactly."""
        for name, samples in (
            ("labelled", self.labelled), ("pool", self.pool), ("selection", self.selection)
        ):  # fmt: skip
            if samples is not None:
                write_text(folder / f"{name}.txt", "".join(f"{s.name}\n" for s in samples))


def choose_streams(dataset: Dataset, config: TrainConfig, method: Method) -> Streams:
    """The samples of a new run.

    Raises:
        ValueError, FileNotFoundError: as ``labelled_partition`` and ``Dataset.split``.
    """
    labelled = labelled_partition(
        dataset, config.labelled, seed=config.seed, skip_bad=config.skip_bad
    )
    streams = Streams(
        labelled=labelled,
        pool=withhold(pool(dataset), labelled) if method.needs.pool else None,
        selection=dataset.split(config.select_on),
    )
    if not config.skip_bad:
        return streams
    coding = dataset.coding
    labelled, bad = readable(streams.labelled, coding)
    candidates, bad_pool = readable(streams.pool or (), coding)
    selection, bad_selection = readable(streams.selection, coding)
    lines = dict.fromkeys(problem.message for problem in (*bad, *bad_pool, *bad_selection))
    report_skipped(lines)
    return Streams(
        labelled=labelled,
        pool=None if streams.pool is None else candidates,
        selection=selection,
        skipped=len(lines),
    )


def recorded_streams(dataset: Dataset, run: Path, config: TrainConfig, method: Method) -> Streams:
    """The samples that a run wrote down when it started; nothing is drawn anew.

    Raises:
        FileNotFoundError: if a list is missing.
        ValueError: if the data no longer hold a listed image.
    """

    def listed(name: str) -> list[Sample]:
        path = run / "splits" / f"{name}.txt"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: {run} is not a whole run folder")
        names = path.read_text(encoding="utf-8").splitlines()
        return [dataset.sample(n) for n in names]

    labelled = tuple(listed("labelled"))
    return Streams(
        labelled=labelled,
        pool=withhold(listed("pool"), labelled) if method.needs.pool else None,
        selection=tuple(listed("selection")),
    )
