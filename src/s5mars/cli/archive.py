"""Commands for many images: predict, find."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from s5mars.cli.command import Command
from s5mars.cli.models import inference_of, inference_options


def _predict_options(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder, checkpoint, ONNX file or hf:OWNER/NAME")
    parser.add_argument("inputs", type=Path, nargs="+", help="paths to images or folders")
    parser.add_argument("--out", type=Path, required=True, help="output folder for the maps")
    parser.add_argument("--resume", action="store_true", help="continue an unfinished run")
    parser.add_argument(
        "--write", default="labels,confidence,overlay", metavar="KIND,...",
        help="outputs among labels, confidence, overlay and rle (labels,confidence,overlay)",
    )  # fmt: skip
    inference_options(parser)
    parser.add_argument(
        "--abstain", type=float, metavar="P", help="assign no class where the confidence is below P"
    )
    parser.add_argument(
        "--tta", action="store_true", help="average over the horizontal flip; doubles the time"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="do not fail if some images cannot be predicted"
    )
    parser.add_argument(
        "--workers", type=int, default=2,
        help="number of reading processes and of writing threads; with Ray, of models (2)",
    )  # fmt: skip
    parser.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="engine that runs the models (local)",
    )
    parser.add_argument("--address", help="address of a Ray cluster, or auto for the running one")


def _predict(options: Namespace) -> object:
    from s5mars.predict.archive import predict_images
    from s5mars.predict.predictor import load

    predictor = load(options.run, network=options.network, inference=inference_of(options))
    summary = predict_images(
        predictor,
        options.inputs,
        out=options.out,
        write=[kind.strip() for kind in options.write.split(",") if kind.strip()],
        resume=options.resume,
        skip_bad=options.skip_bad,
        workers=options.workers,
        engine=options.engine,
        address=options.address,
    )
    print(summary)
    return summary


def _find_options(parser: ArgumentParser) -> None:
    parser.add_argument("maps", type=Path, help="output folder of s5mars predict")
    parser.add_argument("condition", help='SQL condition, such as "rock > 0.2 and sol < 500"')
    parser.add_argument("--top", type=int, default=20, help="maximum number of rows (20)")
    parser.add_argument(
        "--sort", metavar="COLUMN", help="column to sort by (the first class in the condition)"
    )
    parser.add_argument("--ascending", action="store_true", help="sort in ascending order")
    parser.add_argument(
        "--format", choices=["table", "csv", "json"], default="table", help="output format (table)"
    )
    parser.add_argument(
        "--sheet", type=Path, help="path to an image file for a contact sheet of overlays"
    )


def _find(options: Namespace) -> object:
    from s5mars.predict.find import find

    found = find(
        options.maps,
        options.condition,
        top=options.top,
        sort=options.sort,
        ascending=options.ascending,
        sheet=options.sheet,
    )
    print(found.text(options.format))
    print(found.summary, file=sys.stderr)
    return found


COMMANDS = {
    "predict": Command(
        "Predict terrain maps of images of any size, and write an index of them.",
        "s5mars predict runs/a IMAGE_OR_FOLDER --out maps",
        _predict_options,
        _predict,
    ),
    "find": Command(
        "Find products that satisfy a condition; print a table and draw a contact sheet.",
        's5mars find maps "rock > 0.2 and sol between 400 and 500" --top 20 --sheet sheet.png',
        _find_options,
        _find,
    ),
}
