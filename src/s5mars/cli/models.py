"""Commands for one model: demo, evaluate, report."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import fields
from pathlib import Path

from s5mars.cli.command import Command
from s5mars.errors import UserError
from s5mars.predict.inference import DEFAULT, PRECISIONS, Inference


def network_option(parser: ArgumentParser) -> None:
    """Which of the two networks of a checkpoint is used."""
    parser.add_argument(
        "--network", choices=["teacher", "student"], default="teacher",
        help="network to use (teacher, or student if the method has no teacher)",
    )  # fmt: skip


def inference_options(parser: ArgumentParser) -> None:
    """The network and the settings of ``Inference``; ``inference_of`` reads them."""
    network_option(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    parser.add_argument(
        "--window", type=int, default=DEFAULT.window, help="side of a window in pixels (1024)"
    )
    parser.add_argument(
        "--overlap", type=float, default=DEFAULT.overlap,
        help="fraction of a window that overlaps its neighbour (0.25)",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=int, default=DEFAULT.batch,
        help="number of windows in one forward pass (1)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=DEFAULT.precision,
        help="floating-point precision (fp32)",
    )  # fmt: skip


def inference_of(options: Namespace) -> Inference:
    """Remove the settings of inference from the parsed options and return them."""
    names = [field.name for field in fields(Inference) if field.name in options]
    return Inference(**{name: vars(options).pop(name) for name in names})


def _evaluate_options(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder, checkpoint, ONNX file or hf:OWNER/NAME")
    parser.add_argument("--data", type=Path, required=True, help="path to the data set")
    parser.add_argument("--split", default="test", help="split to evaluate on (test)")
    parser.add_argument(
        "--protocol", choices=["full", "paper"], default="full",
        help="full: the whole image; paper: a centre crop of 1024 pixels (full)",
    )  # fmt: skip
    inference_options(parser)
    parser.add_argument(
        "--merge", nargs="+", default=[], metavar="A+B", help="classes to merge into one"
    )
    parser.add_argument(
        "--json", action="store_true", dest="as_json", help="print only one JSON object"
    )


def _evaluate(options: Namespace) -> object:
    from s5mars.evaluation.command import evaluate

    inference = inference_of(options)
    return evaluate(**vars(options), inference=inference)


def _report_options(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, nargs="+", help="run folder; several runs are compared")
    parser.add_argument(
        "--out", type=Path, help="path to the page (RUN/report.html; required for several runs)"
    )


def _report(options: Namespace) -> object:
    if len(options.run) == 1:
        from s5mars.report.run import write_report

        page = write_report(options.run[0], out=options.out)
    else:
        from s5mars.report.comparison import write_comparison

        if options.out is None:
            raise UserError("--out is required to compare several runs")
        page = write_comparison(options.run, out=options.out)
    print(page)
    return page


def _demo_options(parser: ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="path to a data set (synthetic scenes)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="output folder (runs/demo)"
    )
    parser.add_argument(
        "--labelled", type=float, default=0.25, help="fraction of the labels to use (0.25)"
    )
    parser.add_argument(
        "--steps", type=int, default=300, help="number of training steps of each method (300)"
    )


def _demo(options: Namespace) -> object:
    from s5mars.demo import DemoSettings, demo

    settings = DemoSettings(labelled=options.labelled, steps=options.steps)
    return demo(options.out, data=options.data, settings=settings)


COMMANDS = {
    "demo": Command(
        "Train two methods on the same few labels, evaluate both, and write a report.",
        "s5mars demo --data DATA --out runs/demo",
        _demo_options,
        _demo,
    ),
    "evaluate": Command(
        "Evaluate a model on a labelled split.",
        "s5mars evaluate runs/a --data DATA --split test",
        _evaluate_options,
        _evaluate,
    ),
    "report": Command(
        "Write a self-contained HTML report of one or several runs.",
        "s5mars report runs/a",
        _report_options,
        _report,
    ),
}
