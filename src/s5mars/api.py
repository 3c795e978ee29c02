"""The commands as functions for scripts and notebooks.

Keywords are the options of the command of the same name, with underscores, and go through its
parser: whatever the command refuses is a ``UserError`` with the same words here. ``s5mars train
--help-all``, ``s5mars evaluate --help`` and ``s5mars compare --help`` describe them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, cast

from s5mars.comparison.results import read_comparison
from s5mars.comparison.table import table
from s5mars.errors import MissingFileError, UserError
from s5mars.evaluation.command import as_table
from s5mars.evaluation.command import evaluate as score
from s5mars.files.reading import read_object
from s5mars.files.run_folder import CONFIG, FOLDS, METRICS
from s5mars.methods import method_name, method_title
from s5mars.models.opened import is_model
from s5mars.predict.inference import take_inference
from s5mars.predict.predictor import Predictor, load
from s5mars.predict.reading import Picture
from s5mars.predict.segmentation import Segmentation
from s5mars.report.run import write_report
from s5mars.settings.keywords import as_arguments, as_words
from s5mars.training import command
from s5mars.training.environment import kept_randomness, recorded_as
from s5mars.types import Method


class Scores(dict[str, Any]):
    """What ``evaluate`` returns, as in its JSON file; shown as the table that the command prints.

    ``scores["mIoU"]`` is in percent; ``scores["classes"]["rock"]["iou"]``, too.
    """

    def __repr__(self) -> str:
        return as_table(self)


class Run:
    """A run folder of ``train``.

    It goes wherever a path of a run does, such as ``s5mars.load(run)``.

    Args:
        folder: the folder.

    Raises:
        MissingFileError: if there is no run.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)
        if not is_model(self.folder) or not self.folder.is_dir():
            raise MissingFileError(
                f"{self.folder} is not the folder of a run: s5mars.train(..., out=...) makes one"
            )

    @property
    def metrics(self) -> dict[str, Any]:
        """Content of ``metrics.json``: steps, history of the validations, best score, seconds.

        A run with ``folds`` has that of ``folds.json``: scores with their spread.

        Raises:
            MissingFileError: if the run was stopped before its first validation.
        """
        folds = self.folder / FOLDS
        return read_object(folds if folds.is_file() else self.folder / METRICS)

    @property
    def folds(self) -> list[Run]:
        """The runs of a cross-validation (``folds=5``), which have a model each."""
        numbers = range(1, 1 + len(list(self.folder.glob(f"fold-*/{CONFIG}"))))
        return [Run(self.folder / f"fold-{number}") for number in numbers]

    @cached_property
    def predictor(self) -> Predictor:
        """The trained model, on the accelerator if there is one."""
        return self.load(device="auto")

    def load(self, **settings: Any) -> Predictor:
        """The trained model with other settings of ``s5mars.load``, such as ``tta=True``."""
        return load(self.folder, **settings)

    def predict(self, image: Picture) -> Segmentation:
        """Map an image: labels, confidence, and how they look.

        Args:
            image: path of an image or product, a Pillow image, or a (H, W, 3) or (H, W) uint8
                array.

        Raises:
            UserError: if the image cannot be read or the run has no model yet.
        """
        return self.predictor.segment(image)

    def evaluate(self, **settings: Any) -> Scores:
        """Score the model; see ``s5mars.evaluate``."""
        return evaluate(self.folder, **settings)

    def report(self, **settings: Any) -> Path:
        """Write the HTML page about the run, with options of ``s5mars report``; return its path."""
        options = vars(_parsed("report", [str(self.folder)], settings))
        return write_report(options.pop("run")[0], **options)

    def resume(
        self,
        *,
        method: Method | None = None,
        data: str | PathLike[str] | None = None,
        skip_bad: bool = False,
    ) -> Run:
        """Continue a run that was stopped; a finished one is left as it is.

        Args:
            method: object of the run's method, with the settings of the run, if its class is
                neither a part of s5mars nor registered.
            data: where its data is now, if it was moved.
            skip_bad: leave out damaged images of the pool from now on.

        Raises:
            UserError: if the method or the data are not those of the run.
        """
        moved = None if data is None else Path(data)
        self.__dict__.pop("predictor", None)  # its weights will be outdated
        with kept_randomness(), recorded_as(["train", f"--resume={self.folder}"]):
            command.resume(self.folder, data=moved, skip_bad=skip_bad, own=_checked(method))
        return Run(self.folder)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        try:
            metrics = self.metrics
        except UserError:
            return f"Run({self.folder}; no validation yet)"
        if "folds" in metrics:
            said = f"{metrics['folds']} folds, mIoU {_percent(metrics['mIoU']['mean'])}"
        else:
            best = metrics["best"] or {}
            split = metrics["split_for_selection"]
            said = f"{method_title(metrics['method'])}, step {metrics['steps']} of "
            said += str(metrics["total_steps"])
            said += f", mIoU {_percent(best.get('mIoU'))} on {split}" if split else ""
        return f"Run({self.folder}; {said})"


class Comparison:
    """A folder of ``compare``: a run for each method, share of labels and seed.

    Args:
        folder: the folder.

    Raises:
        MissingFileError: if there is no comparison.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)
        read_comparison(self.folder)

    @property
    def runs(self) -> dict[tuple[str, str, int], Run]:
        """The runs that are done, by (method, labelled share, seed)."""
        done = read_comparison(self.folder).done()
        return {each.key: Run(self.folder / each.folder) for each in done}

    def table(self, form: str = "md", *, reference: str | None = None) -> str:
        """Tables with intervals over seeds and the protocol in words.

        Args:
            form: ``md``, ``latex``, ``html`` or ``csv``.
            reference: row that the others are compared with; None keeps that of the comparison.
        """
        return table(self.folder, form=form, reference=reference)

    def figures(self, folder: str | PathLike[str] | None = None) -> Sequence[Path]:
        """Draw the figures of ``s5mars table --figures`` in a folder and return their paths.

        The default is ``figures`` in the folder of the comparison.
        """
        from s5mars.comparison.figures import write_figures

        return write_figures(self.folder, Path(folder or self.folder / "figures"))

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        found = read_comparison(self.folder)
        return f"Comparison({self.folder}; {len(found.done())} of {len(found.cells)} runs done)"

    def _repr_markdown_(self) -> str:
        return self.table()


def train(
    folder: str | PathLike[str] | None = None,
    *,
    method: str | Method | None = None,
    **settings: Any,
) -> Run:
    """Train a model; what is not given is chosen as by ``s5mars train FOLDER``.

    Training takes one process, also on a machine with several GPUs.

    Example:
        >>> run = s5mars.train("data", labelled=0.125, steps=600)  # doctest: +SKIP
        >>> run = s5mars.train("data", deeplab={"decoder": "light"})  # doctest: +SKIP
        >>> run = s5mars.train("data", method=MyMethod(weight=2.0))  # doctest: +SKIP

    Args:
        folder: images and labels, in any layout that s5mars knows.
        method: name of a method, or an object of a class of your own (``s5mars.types.Method``,
            docs/method.md).
        **settings: options of ``s5mars train``; those of a network or method are in a mapping, such
            as ``s5mars={"soft_weight": 0.5}``.

    Returns:
        The run. Check ``run.metrics`` for its steps if Ctrl-C (or "interrupt the kernel") may have
        stopped it: ``run.resume()`` continues.

    Raises:
        UserError, MissingFileError: if settings or data are wrong; an unknown option names the
            nearest one.
    """
    own = None if isinstance(method, str) else _checked(method)
    name = method if own is None else method_name(type(own))
    if "resume" in settings:
        raise UserError("to resume a run, use s5mars.Run(folder).resume()")
    where = {} if folder is None else {"data": folder}
    if where.keys() & settings.keys():
        raise UserError(f"the data is given twice, as {folder} and as data: give one")
    arguments = as_arguments({**where, "method": name, **settings})
    with kept_randomness(), recorded_as(["train", *arguments]):
        return Run(command.train(arguments, own=own, one_process=True).run)


def evaluate(model: str | PathLike[str], **settings: Any) -> Scores:
    """Score a model on a labelled split; nothing is printed.

    The scores are also written where the report finds them (``evaluation-test-full.json`` in a run
    folder).

    Example:
        >>> s5mars.evaluate("runs/a", split="val")["mIoU"]  # doctest: +SKIP

    Args:
        model: a run, a checkpoint or ONNX file, ``hf:OWNER/NAME``, or the name of an installed
            model.
        **settings: options of ``s5mars evaluate``, such as ``data``, ``split``, ``device``,
            ``merge=["sky+ridge"]``, ``map="ai4mars-marsscapes"``.

    Raises:
        UserError, MissingFileError: if model, data or settings are wrong.
    """
    if "json" in settings:
        raise UserError("json is an option of the command line only: leave it out")
    options = vars(_parsed("evaluate", [os.fspath(model)], settings))
    inference, others = take_inference(options)
    return Scores(score(**others, inference=inference, show=False))


def compare(
    folder: str | PathLike[str] | None = None,
    *,
    methods: str | Method | Iterable[str | Method] | None = None,
    **settings: Any,
) -> Comparison:
    """Train and score methods on several labelled shares and seeds.

    Each run has a process of its own, except those of a method object, which only this process
    knows. The same call continues after a stop.

    Example:
        >>> s5mars.compare("data", methods=["supervised", "s5mars"], labelled=[0.125, 0.25],
        ...                seeds=range(3), steps=600, out="results/x")  # doctest: +SKIP
        >>> s5mars.compare("data", methods=["supervised", MyMethod(weight=2.0)], steps=600,
        ...                out="results/own")  # doctest: +SKIP

    Args:
        folder: the data set.
        methods: name of a method, ``"all"``, or an object of a class of your own, as for
            ``train``; or several of them.
        **settings: options of ``s5mars compare`` and of ``s5mars train``.

    Raises:
        UserError, MissingFileError: if settings or data are wrong, or a run failed.
    """
    from s5mars.comparison.command import compare as run

    if methods is None:
        listed: list[str | Method] = []
    elif isinstance(methods, Iterable) and not isinstance(methods, str):
        listed = [*methods]
    else:
        listed = [methods]
    for each in listed:
        if not isinstance(each, str):
            _checked(each)
    where = {} if folder is None else {"data": folder}
    options = vars(_parsed("compare", [], {**where, **settings}))
    with kept_randomness():
        run(**{**options, "methods": listed})
    return Comparison(options["out"])


def _parsed(name: str, positional: Sequence[str], settings: dict[str, Any]) -> Any:
    """The options of a command, from keywords."""
    from s5mars.cli import COMMANDS

    of_command = COMMANDS[name]
    return of_command.parse(name, [*positional, *as_words(of_command.parser(name), settings)])


def _checked(method: Method | None) -> Method | None:
    if isinstance(method, type):
        raise UserError(f"method must be an object, not a class: write method={method.__name__}()")
    return method


def _percent(value: object) -> str:
    return "–" if value is None else f"{cast(float, value):.1f} %"
