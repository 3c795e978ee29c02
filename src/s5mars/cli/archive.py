"""Commands about many images: predict, find."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from s5mars.cli.command import Command, engine_options
from s5mars.cli.models import inference_options
from s5mars.predict.inference import take_inference


def _predict_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL",
        help="Run folder, checkpoint, ONNX file, hf:OWNER/NAME, or a name that `s5mars models` "
        "lists (navcam); any other argument is an image",
    )  # fmt: skip
    parser.add_argument(
        "images", nargs="+", metavar="IMAGES", help="Paths to images, products or folders of them"
    )
    parser.add_argument("--out", type=Path, required=True, help="Path to the folder for the maps")
    parser.add_argument(
        "--resume", action="store_true", help="Continue an unfinished prediction in --out"
    )
    parser.add_argument(
        "--write", default="labels,confidence,overlay", metavar="KIND,...",
        help="Outputs to write, out of labels, confidence, overlay and rle "
        "(labels,confidence,overlay)",
    )  # fmt: skip
    inference_options(parser)
    parser.add_argument(
        "--abstain", type=float, metavar="P", help="Assign no class where the confidence is below P"
    )
    parser.add_argument(
        "--tta", action="store_true", help="Average over the horizontal flip; takes twice the time"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="Skip images that cannot be read instead of failing"
    )
    parser.add_argument(
        "--workers", type=int, default=2,
        help="Number of reading processes and of writing threads; with Ray, of models (2)",
    )  # fmt: skip
    engine_options(parser)


def _predict(options: Namespace) -> object:
    from s5mars.models.opened import model_and_images
    from s5mars.predict.archive import predict_images
    from s5mars.predict.predictor import load

    model, images = model_and_images(options.model, options.images)
    inference, _ = take_inference(vars(options))
    predictor = load(model, network=options.network, inference=inference)
    if model != options.model:
        print(f"model: {model}; classes: {', '.join(predictor.taxonomy.names)}", file=sys.stderr)
    return predict_images(
        predictor,
        images,
        out=options.out,
        write=[kind.strip() for kind in options.write.split(",") if kind.strip()],
        resume=options.resume,
        skip_bad=options.skip_bad,
        workers=options.workers,
        engine=options.engine,
        address=options.address,
    )


def _find_options(parser: ArgumentParser) -> None:
    parser.add_argument("maps", type=Path, help="Path to a folder written by s5mars predict")
    parser.add_argument(
        "condition", help='Condition such as "sand > 0.2 and sol between 400 and 500"'
    )
    parser.add_argument("--top", type=int, default=20, help="Maximum number of rows (20)")
    parser.add_argument(
        "--sort", metavar="COLUMN", help="Column to sort by (the first class of the condition)"
    )
    parser.add_argument("--ascending", action="store_true", help="Sort the smallest values first")
    parser.add_argument(
        "--format",
        choices=["table", "csv", "json"],
        default="table",
        help="Format of the output (table)",
    )
    parser.add_argument("--sheet", type=Path, help="Path to an image file for a sheet of overlays")
    parser.add_argument(
        "--only", nargs="*", metavar="CLASS",
        help="Classes to colour on the sheet; without a name, those of the condition (all)",
    )  # fmt: skip


def _find(options: Namespace) -> None:
    from s5mars.predict.find import find

    form = vars(options).pop("format")
    found = find(**vars(options))
    print(found.text(form))
    print(found.summary, file=sys.stderr)


COMMANDS = {
    "predict": Command(
        "Write terrain maps of images of any size, and an index of them.",
        "s5mars predict IMAGE_OR_FOLDER --out maps",
        _predict_options,
        _predict,
        prints=True,
    ),
    "find": Command(
        "List the products whose maps or labels meet a condition; draw a sheet of them.",
        's5mars find maps "sand > 0.2 and sol between 400 and 500" --top 20 --sheet sheet.png',
        _find_options,
        _find,
    ),
}
