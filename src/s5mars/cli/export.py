"""Commands that prepare a model for use: calibrate, export, push."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from s5mars.cli.command import Command, splits_option
from s5mars.cli.models import (
    SPLITS_OF_A_RUN,
    data_option,
    inference_options,
    network_option,
)
from s5mars.predict.inference import take_inference


def _calibrate_options(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Path to a run folder or checkpoint")
    data_option(parser)
    parser.add_argument("--split", default="val", help="Split to fit on (val)")
    splits_option(parser, default=SPLITS_OF_A_RUN)
    parser.add_argument(
        "--pixels",
        type=int,
        default=500_000,
        help="Number of pixels to draw from the split (500000)",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed for drawing the pixels (0)")
    parser.add_argument(
        "--class-biases",
        choices=("keep", "fit", "none"),
        default="keep",
        help="Keep the class biases of the model, fit new ones, which are used if "
        "cross-validation shows a gain of mIoU, or remove them with none (keep)",
    )
    inference_options(parser)


def _calibrate(options: Namespace) -> object:
    from s5mars.evaluation.calibrate import calibrate

    inference, others = take_inference(vars(options))
    return calibrate(**others, inference=inference)


def _export_options(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Path to a run folder or checkpoint")
    parser.add_argument(
        "--out", type=Path, help="Path to the file (model.onnx or model.int8.onnx in the run)"
    )
    parser.add_argument(
        "--int8", action="store_true", help="Quantise weights and activations to 8 bits"
    )
    parser.add_argument(
        "--images",
        type=Path,
        help="Path to images for comparison and calibration (the run's train images)",
    )
    network_option(parser)


def _push_options(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Path to a run folder or checkpoint")
    parser.add_argument("name", help="Repository on the hub, as OWNER/NAME")
    parser.add_argument(
        "--licence", help="Licence of the weights for the model card, such as apache-2.0"
    )
    parser.add_argument(
        "--licence-file",
        type=Path,
        help="Path to the text of the licence; required by some, such as DINOv3's",
    )
    parser.add_argument("--private", action="store_true", help="Make a new repository private")
    parser.add_argument(
        "--dry-run",
        type=Path,
        metavar="DIR",
        help="Write the files to DIR instead of uploading them",
    )


COMMANDS = {
    "calibrate": Command(
        "Fit a temperature, so that confidence agrees better with accuracy; optionally, "
        "fit class biases.",
        "s5mars calibrate runs/a --split val",
        _calibrate_options,
        _calibrate,
        reads_data=True,
    ),
    "export": Command(
        "Write an ONNX file for any image size, with normalisation and softmax included.",
        "s5mars export runs/a --int8 --out model.onnx",
        _export_options,
        "s5mars.export.command.export",
    ),
    "push": Command(
        'Upload weights and a model card for s5mars.load("hf:OWNER/NAME").',
        "s5mars push runs/a OWNER/NAME --licence apache-2.0",
        _push_options,
        "s5mars.export.push.push",
    ),
}
