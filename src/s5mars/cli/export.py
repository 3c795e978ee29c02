"""Commands about a model on its way out: calibrate, export, push."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from s5mars.cli.command import Command
from s5mars.cli.models import inference_of, inference_options, network_option


def _calibrate_options(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder or checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--split", default="val", help="to fit on (val)")
    parser.add_argument("--pixels", type=int, default=500_000, help="drawn of it (500000)")
    parser.add_argument("--seed", type=int, default=0, help="of that draw (0)")
    inference_options(parser)


def _calibrate(options: Namespace) -> object:
    from s5mars.evaluation.calibrate import calibrate

    inference = inference_of(options)
    return calibrate(**vars(options), inference=inference)


def _export_options(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder or checkpoint")
    parser.add_argument(
        "--out", type=Path, help="the file (in the run folder: model.onnx, or model.int8.onnx)"
    )
    parser.add_argument("--int8", action="store_true", help="weights and activations in 8 bits")
    parser.add_argument(
        "--images", type=Path, help="folder to compare and calibrate on (the run's train images)"
    )
    network_option(parser)


def _export(options: Namespace) -> object:
    from s5mars.export.command import export

    return export(**vars(options))


def _push_options(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder or checkpoint")
    parser.add_argument("name", help="OWNER/NAME on the hub")
    parser.add_argument("--licence", help="of the weights, for the card, such as apache-2.0")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument(
        "--dry-run", type=Path, metavar="DIR", help="write the upload here, and send nothing"
    )


def _push(options: Namespace) -> object:
    from s5mars.export.push import push

    return push(**vars(options))


COMMANDS = {
    "calibrate": Command(
        "Fit a temperature, so that a confidence of 0.8 is right in 80 % of the pixels.",
        "s5mars calibrate runs/a --data DATA --split val",
        _calibrate_options,
        _calibrate,
    ),
    "export": Command(
        "One ONNX file: any image size, normalisation and softmax inside; 8 bits with --int8.",
        "s5mars export runs/a --int8 --out model.onnx",
        _export_options,
        _export,
    ),
    "push": Command(
        'Upload weights and a model card, for s5mars.load("hf:OWNER/NAME").',
        "s5mars push runs/a OWNER/NAME --licence apache-2.0",
        _push_options,
        _push,
    ),
}
