"""What a cell of a comparison does: train or resume its run, then score it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from s5mars.comparison.results import STOPPED
from s5mars.evaluation.command import evaluate
from s5mars.files.run_folder import is_trained
from s5mars.predict.inference import AUTO_DEVICE
from s5mars.training import command
from s5mars.training.environment import recorded_as
from s5mars.types import Method


@dataclass(frozen=True, kw_only=True)
class Job:
    """The work of one cell; paths are absolute."""

    run: Path
    arguments: tuple[str, ...] | None  # of ``s5mars train``; None resumes the run
    data: Path
    splits: Path | None  # folder of the split lists, if it is not that of the data
    split: str  # that is scored
    protocol: str  # of the evaluation
    device: str  # of the evaluation

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job that ``to_json`` wrote."""
        fields = json.loads(text)
        arguments, splits = fields["arguments"], fields["splits"]
        return cls(
            **{
                **fields,
                "run": Path(fields["run"]),
                "arguments": None if arguments is None else tuple(arguments),
                "data": Path(fields["data"]),
                "splits": None if splits is None else Path(splits),
            }
        )


def run_job(job: Job, *, own: Method | None = None) -> int:
    """Train and score one cell, and return the exit code; an ``own`` method takes one process.

    Raises:
        UserError, OSError: if training or scoring fails.
    """
    arguments = ["--resume", str(job.run)] if job.arguments is None else [*job.arguments]
    with recorded_as(["train", *arguments]):
        # Also a run that is trained: it may have been stopped before its class biases were fitted.
        if job.arguments is None:
            command.resume(job.run, own=own)
        else:
            command.train(arguments, own=own, one_process=own is not None)
    if not is_trained(job.run):
        return STOPPED
    evaluate(
        job.run,
        data=job.data,
        splits=job.splits,
        split=job.split,
        protocol=job.protocol,
        inference=replace(AUTO_DEVICE, device=job.device),
    )
    return 0
