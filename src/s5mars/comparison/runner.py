"""The ``compare`` command: train and score every cell of a grid, and continue after a stop."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any

from s5mars.comparison import settings
from s5mars.comparison.general import missing_weights
from s5mars.comparison.grid import Cell
from s5mars.comparison.in_process import InProcess
from s5mars.comparison.job import Job
from s5mars.comparison.plan import Plan, Request, plan, train_arguments, with_choices, with_files
from s5mars.comparison.results import (
    STOPPED,
    UNFINISHED,
    Comparison,
    Result,
    read_scores,
    saved_states,
    write_comparison,
)
from s5mars.devices import device_of
from s5mars.errors import UserError, as_typed, listed
from s5mars.files import write_text
from s5mars.files.locking import locked
from s5mars.files.run_folder import CONFIG, evaluation_path, is_trained
from s5mars.parallel.workers import ended
from s5mars.settings.parsing import parse_training, training_from_yaml
from s5mars.settings.used import used_only, without_unused
from s5mars.text.numbers import duration, plural
from s5mars.types import Method

_LOOK_SECONDS = 0.2  # polling interval of the running cells
OBJECTS = "objects"
"""Folder of the object masks of all cells, in the folder of the comparison."""

_OWN = {"row", "share", "seed", "fingerprint"}  # fields that are not copied from an identical run


@dataclass
class Running:
    """A cell whose process is running, or that this process has trained."""

    cell: Cell
    process: subprocess.Popen[str] | InProcess
    log: Path
    since: float = field(default_factory=time.monotonic)


def compare(request: Request) -> Comparison:
    """Train and score the missing cells, and keep ``comparison.json`` up to date.

    Raises:
        UserError: if settings or data are invalid, the folder contains a comparison with other
            settings, or another process uses it; nothing is written then. Also at the end, if
            cells failed.
    """
    request, chosen = with_choices(with_files(request))
    plan(request)  # raises before a folder is created
    if chosen:
        print(chosen, file=sys.stderr)
    with locked(request.out):
        return _Work(request, plan(request)).finish()


class _Work:
    def __init__(self, request: Request, planned: Plan) -> None:
        self.request = request
        self.out = request.out
        self.cells = {cell.key: cell for cell in planned.cells}
        self.comparison = planned.comparison
        self.running: list[Running] = []

    def finish(self) -> Comparison:
        """Run all cells."""
        todo = self._unfinished()
        self._write()
        self._delete_trainer_state()
        total = len(self.cells)
        waiting = {cell.key for cell in todo}
        failed_before = sum(
            self._result(key).status == "failed" for key in self.cells.keys() - waiting
        )
        again = (
            f" ({failed_before} failed; --retry-failed runs them again)" if failed_before else ""
        )
        print(
            f"{plural(total, 'cell')} requested, {total - len(todo)} already finished or failed"
            f"{again}, {len(todo)} to run: {_names(todo)}"
        )
        try:
            while todo or self.running:
                while todo and len(self.running) < self.request.jobs:
                    self._start(todo.pop(0))
                time.sleep(_LOOK_SECONDS)
                for finished in [r for r in self.running if r.process.poll() is not None]:
                    self.running.remove(finished)
                    self._record_end(finished)
                    self._report(finished.cell, todo)
        except KeyboardInterrupt:
            self._stop()
            raise
        failed = [r for key in self.cells if (r := self._result(key)).status == "failed"]
        for result in failed:
            print(f"failed: {result.name}: {result.reason}", file=sys.stderr)
        figures = as_typed(self.out / "figures")
        print(f"next: s5mars table {as_typed(self.out)} --format md --figures {figures}")
        if failed:
            rest = ", all others are done" if len(failed) < total else ""
            raise UserError(
                f"{len(failed)} of {plural(total, 'cell')} failed{rest}; repeat the command with "
                f"--retry-failed to run {'it' if len(failed) == 1 else 'them'} again"
            )
        return self.comparison

    def _unfinished(self) -> list[Cell]:
        """Return the cells that are not finished, those already started first."""
        again = {*UNFINISHED, "unavailable"}
        if self.request.retry_failed:
            again.add("failed")
        found = [cell for key, cell in self.cells.items() if self._result(key).status in again]
        return sorted(found, key=lambda cell: not (self.out / cell.path).exists())

    def _start(self, cell: Cell) -> None:
        if (twin := self._identical_cell(cell)) is not None:
            same = {f.name: getattr(twin, f.name) for f in fields(Result) if f.name not in _OWN}
            self._set(cell, **same)
            print(f"copied from the identical run {twin.name}: {cell.name}", flush=True)
            return
        run = self.out / cell.path
        log = run.with_suffix(".log")
        try:
            if reason := missing_weights(cell.row, self.request.weights):
                self._set(cell, status="unavailable", reason=reason)
                print(f"{cell.name}: {reason}", flush=True)
                return
            job = self._job(cell, run)
        except (UserError, OSError) as error:
            self._set(cell, status="failed", reason=" ".join(str(error).split()))
            print(f"failed: {cell.name}", flush=True)
            return
        evaluation = evaluation_path(run, split=self.request.split, protocol=self.request.protocol)
        if is_trained(run) and evaluation.is_file():
            self._score(cell, elapsed=self._result(cell.key).elapsed)
            print(f"already scored: {cell.name}", flush=True)
            return
        log.parent.mkdir(parents=True, exist_ok=True)
        self._set(cell, status="running", reason="")
        print(f"started: {cell.name}", flush=True)
        if cell.row.own is not None:
            self._train_here(cell, job, cell.row.own, log=log)
            return
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "s5mars.cli.child"],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        _send(process.stdin, job)
        self.running.append(Running(cell, process, log))

    def _train_here(self, cell: Cell, job: Job, own: Method, *, log: Path) -> None:
        since = time.monotonic()
        done = InProcess(job, own, log=log)
        self.running.append(Running(cell, done, log, since))
        if done.returncode == STOPPED:  # the run has caught the Ctrl-C that is for all cells
            raise KeyboardInterrupt

    def _identical_cell(self, cell: Cell) -> Result | None:
        """Return a scored cell of another row with the same settings, or None.

        A cell that was already started is not copied.
        """
        if (self.out / cell.path).exists():
            return None
        wanted = self._result(cell.key)
        return next(
            (
                done
                for done in self.comparison.done()
                if (done.share, done.seed) == (wanted.share, wanted.seed)
                and done.fingerprint == wanted.fingerprint
            ),
            None,
        )

    def _job(self, cell: Cell, run: Path) -> Job:
        """Return what the child process has to do; an unfinished run is resumed.

        Raises:
            UserError: if the existing run has other settings.
        """
        arguments = train_arguments(self.request, cell.row, cell, run.resolve())
        own = cell.row.own
        training = parse_training(arguments, own=own)
        lists = training.config.splits
        where = {"data": training.config.data.resolve()}
        if lists is not None:
            where["splits"] = lists.resolve()
        # What was chosen for the comparison is the same in all cells.
        chosen = {name: getattr(training.config, name) for name in ("model", "resolution", "crop")}
        needs, config = training.method.needs, training.config
        arguments += without_unused(config, needs)
        if needs.objects and config.objects is None and config.object_cache is None:
            chosen["object-cache"] = self.out.resolve() / OBJECTS
        arguments += [f"--{name}={value}" for name, value in (where | chosen).items()]
        if is_trained(run) or saved_states(run):
            # An earlier version recorded unused options, too.
            recorded = training_from_yaml(run / CONFIG, own=own).config
            both = used_only(config, needs), used_only(recorded, needs)
            if different := settings.run_differences(*both):
                raise UserError(
                    f"{run} contains a run with other settings ({'; '.join(different)}); remove it"
                )
            resumed = True
        else:
            # The run stopped before its first save, so nothing is lost.
            shutil.rmtree(run, ignore_errors=True)
            resumed = False
        return Job(
            run=run.resolve(),
            arguments=None if resumed else tuple(arguments),
            data=where["data"],
            splits=where.get("splits"),
            split=self.request.split,
            protocol=self.request.protocol,
            device=str(device_of(training.config.accelerator)),
        )

    def _record_end(self, running: Running, *, stopping: bool = False) -> None:
        """Record how a cell ended; an early end is not a failure while ``stopping``."""
        cell, code = running.cell, running.process.returncode
        with contextlib.suppress(BrokenPipeError):
            if running.process.stdin is not None:
                running.process.stdin.close()
        text = _without_bars(running.log)
        elapsed = self._result(cell.key).elapsed + time.monotonic() - running.since
        if code == STOPPED or (code and stopping):
            self._set(cell, status="stopped", elapsed=elapsed)
        elif code:
            self._set(cell, status="failed", reason=_reason(code, text))
        else:
            self._score(cell, elapsed=elapsed)

    def _score(self, cell: Cell, *, elapsed: float) -> None:
        run = self.out / cell.path
        try:
            scores = read_scores(run, split=self.request.split, protocol=self.request.protocol)
        except (UserError, OSError) as error:
            self._set(cell, status="failed", reason=" ".join(str(error).split()))
        else:
            self._set(cell, status="done", reason="", elapsed=elapsed, **scores)
            self._delete_trainer_state()

    def _stop(self) -> None:
        """Wait for the cells to save and end after Ctrl-C, which they receive too."""
        print(
            "\nwaiting for the running cells to save; the same command continues them",
            file=sys.stderr,
        )
        for running in self.running:
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGTERM)
        for running in self.running:
            running.process.wait()
            self._record_end(running, stopping=True)
        self.running = []

    def _delete_trainer_state(self) -> None:
        """Delete the trainer state of scored cells, which is large and no longer needed."""
        if self.request.keep_checkpoints:
            return
        for result in self.comparison.done():
            for state in saved_states(self.out / result.folder):
                state.unlink(missing_ok=True)

    def _report(self, cell: Cell, todo: Sequence[Cell]) -> None:
        result = self._result(cell.key)
        score = f"mIoU {result.mIoU:.2f} %" if result.mIoU is not None else result.reason
        left = [*(r.cell for r in self.running), *todo]
        print(f"{result.status}: {result.name}: {score}", flush=True)
        if left:
            text = remaining_text(left, self.comparison.done(), jobs=self.request.jobs)
            print(f"  {text}: {_names(left)}", flush=True)

    def _result(self, key: tuple[str, str, int]) -> Result:
        return next(cell for cell in self.comparison.cells if cell.key == key)

    def _set(self, cell: Cell, **changes: Any) -> None:
        key = cell.key
        self.comparison = replace(
            self.comparison,
            cells=tuple(
                replace(result, **changes) if result.key == key else result
                for result in self.comparison.cells
            ),
        )
        self._write()

    def _write(self) -> None:
        write_comparison(self.out, self.comparison)


def remaining_text(left: Sequence[Cell], done: Sequence[Result], *, jobs: int) -> str:
    """``"3 cells left, about 2 h"``, estimated from finished cells of the same row if any.

    The time that running cells have already spent is not subtracted.
    """
    text = f"{plural(len(left), 'cell')} left"
    if not done:
        return text
    overall = statistics.fmean(result.elapsed for result in done)
    seconds = 0.0
    for cell in left:
        same = [result.elapsed for result in done if result.row == cell.row.name]
        seconds += statistics.fmean(same) if same else overall
    return f"{text}, about {duration(seconds / min(jobs, len(left)))}"


def _names(cells: Sequence[Cell]) -> str:
    return listed([cell.name for cell in cells], 12) or "nothing"


def _send(stream: IO[str] | None, job: Job) -> None:
    # The stream stays open: when it closes, the child knows that its parent died. If the child
    # dies at once, its exit code shows it.
    with contextlib.suppress(BrokenPipeError):
        if stream is not None:
            stream.write(job.to_json() + "\n")
            stream.flush()


def _without_bars(log: Path) -> str:
    """Remove overwritten progress bars from a log, and return its text."""
    text = log.read_text(encoding="utf-8", errors="replace")
    text = re.sub(r"[^\n]*\r(?!\n)", "", text)
    write_text(log, text)
    return text


def _reason(code: int, log: str) -> str:
    if code < 0:
        return ended(code)
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = [line.removeprefix("s5mars: ") for line in lines if line.startswith("s5mars: ")]
    return [*lines[-1:], *said[-1:]][-1] if lines else f"exit code {code}"
