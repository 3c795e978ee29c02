"""Commands about one model: demo, evaluate, report, models."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from s5mars.cli.command import Command, splits_option
from s5mars.errors import UserError
from s5mars.predict.inference import PRECISIONS, take_inference


def network_option(parser: ArgumentParser) -> None:
    """Which of the two networks of a checkpoint is used."""
    parser.add_argument(
        "--network", choices=["teacher", "student"], default="teacher",
        help="Network to use (teacher, or student if the method has no teacher)",
    )  # fmt: skip


def inference_options(parser: ArgumentParser) -> None:
    """The network and the settings of ``Inference``; ``take_inference`` reads them."""
    network_option(parser)
    parser.add_argument("--device", default="auto", help="Device: auto, cpu, cuda or mps (auto)")
    parser.add_argument("--window", type=int, default=1024, help="Window side in pixels (1024)")
    parser.add_argument(
        "--overlap", type=float, default=0.25,
        help="Fraction of a window that overlaps its neighbour (0.25)",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=int, default=1, help="Number of windows in one forward pass (1)"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="Floating-point precision (fp32)"
    )


SPLITS_OF_A_RUN = "that of the run; with other data DATA/splits"
"""The default of ``--splits`` beside ``data_option``."""


def data_option(parser: ArgumentParser) -> None:
    """The data set of a run, if it is not where the run was trained."""
    parser.add_argument(
        "--data", type=Path, help="Path to the folder of the data set (that of the run)"
    )


def _evaluate_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "run", type=Path,
        help="Path to a run folder, checkpoint or ONNX file, hf:OWNER/NAME, or the name of an "
        "installed model",
    )  # fmt: skip
    data_option(parser)
    parser.add_argument("--split", default="test", help="Split to score (test)")
    splits_option(parser, default=SPLITS_OF_A_RUN)
    parser.add_argument(
        "--protocol", choices=["full", "paper"], default="full",
        help="Score whole images, or centre crops of 1024 pixels (full)",
    )  # fmt: skip
    inference_options(parser)
    parser.add_argument(
        "--merge",
        nargs="+",
        default=[],
        metavar="A+B",
        help="Classes to merge into one, such as sky+ridge",
    )
    parser.add_argument(
        "--map", dest="class_map", metavar="MAP",
        help="Class map for data with other classes: a name such as ai4mars-marsscapes, or pairs "
        "MODEL_CLASS=DATA_CLASS such as 'big rock=rock,soil=soil+gravel,sky=-'",
    )  # fmt: skip
    parser.add_argument(
        "--no-class-biases", dest="class_biases", action="store_false",
        help="Score the class of the largest probability, without the class biases of the model",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="DIR",
        help="Path to a folder for the scores as JSON and text (JSON only, in the run folder)",
    )  # fmt: skip
    parser.add_argument(
        "--json", dest="as_json", action="store_true", help="Print a JSON object instead of a table"
    )


def _evaluate(options: Namespace) -> object:
    from s5mars.evaluation.command import evaluate

    inference, others = take_inference(vars(options))
    return evaluate(**others, inference=inference)


def _report_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "run", type=Path, nargs="+", help="Path to a run folder; several runs are compared"
    )
    parser.add_argument(
        "--out", type=Path, help="Path to the page (RUN/report.html; required for several runs)"
    )
    data_option(parser)
    splits_option(parser, default=SPLITS_OF_A_RUN)


def _report(options: Namespace) -> Path:
    where = {"data": options.data, "splits": options.splits}
    if len(options.run) == 1:
        from s5mars.report.run import write_report

        return write_report(options.run[0], out=options.out, **where)
    from s5mars.report.comparison import write_comparison

    if options.out is None:
        raise UserError("a report of several runs needs --out")
    return write_comparison(options.run, out=options.out, **where)


def _demo_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        help="Path to a folder of your images and masks (images of the package)",
    )
    parser.add_argument(
        "--synthetic", action="store_true", help="Render synthetic scenes and use those"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="Path to the output folder (runs/demo)"
    )
    parser.add_argument(
        "--labelled", type=float, default=1.0, help="Share of the train labels to use (1.0)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        help="Number of training steps of each run (300, about ten minutes in all)",
    )


def _demo(options: Namespace) -> object:
    from s5mars.demo.run import DemoSettings, demo

    settings = DemoSettings(labelled=options.labelled)
    if options.steps is not None:
        settings = replace(settings, steps=options.steps)
    return demo(options.out, data=options.data, synthetic=options.synthetic, settings=settings)


def _demo_data_options(parser: ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="Path to the new folder")


def _models_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        help="Name of the model whose card is printed; a list of all models if omitted",
    )


def _models(options: Namespace) -> str:
    from s5mars.models.installed import card_of, list_installed

    return list_installed() if options.name is None else card_of(options.name)


COMMANDS = {
    "demo": Command(
        "Map real images, train two methods on the same few labels, and write one page.",
        "s5mars demo --out runs/demo",
        _demo_options,
        _demo,
    ),
    "demo-data": Command(
        "Copy the demo's 60 real Navcam images and their masks to a folder.",
        "s5mars demo-data navcam60",
        _demo_data_options,
        "s5mars.demo.demo_data",
        prints=True,
    ),
    "evaluate": Command(
        "Score a model on a labelled split.",
        "s5mars evaluate runs/a --split test",
        _evaluate_options,
        _evaluate,
        reads_data=True,
    ),
    "report": Command(
        "Write one self-contained HTML page about one or several runs.",
        "s5mars report runs/a",
        _report_options,
        _report,
        prints=True,
        reads_data=True,
    ),
    "models": Command(
        "List the installed models, or print the card of one.",
        "s5mars models navcam",
        _models_options,
        _models,
        prints=True,
    ),
}
