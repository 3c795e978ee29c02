"""Commands about many images: predict, find."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from s5mars.cli.command import Command
from s5mars.cli.models import inference_of, inference_options


def _predict_options(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder, checkpoint, ONNX file or hf:OWNER/NAME")
    parser.add_argument("inputs", type=Path, nargs="+", help="images or folders")
    parser.add_argument("--out", type=Path, required=True, help="folder for the maps")
    parser.add_argument("--resume", action="store_true", help="go on with an unfinished run")
    parser.add_argument(
        "--write", default="labels,confidence,overlay", metavar="KIND,...",
        help="some of labels, confidence, overlay, rle (labels,confidence,overlay)",
    )  # fmt: skip
    inference_options(parser)
    parser.add_argument(
        "--abstain", type=float, metavar="P", help="no class where the confidence is below P"
    )
    parser.add_argument(
        "--tta", action="store_true", help="mean over the horizontal flip; twice the time"
    )
    parser.add_argument("--skip-bad", action="store_true", help="failed products are no error")
    parser.add_argument(
        "--workers", type=int, default=2,
        help="processes that read, threads that write; with Ray, models at work (2)",
    )  # fmt: skip
    parser.add_argument("--engine", choices=["local", "ray"], default="local", help="(local)")
    parser.add_argument("--address", help="of a Ray cluster; auto: the one that runs here")


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
    parser.add_argument("maps", type=Path, help="folder of an s5mars predict --out")
    parser.add_argument("condition", help='such as "rock > 0.2 and sol between 400 and 500"')
    parser.add_argument("--top", type=int, default=20, help="rows at most (20)")
    parser.add_argument("--sort", metavar="COLUMN", help="(the first class of the condition)")
    parser.add_argument("--ascending", action="store_true", help="smallest first")
    parser.add_argument("--format", choices=["table", "csv", "json"], default="table")
    parser.add_argument("--sheet", type=Path, help="image file for a sheet of overlays")


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
        "Terrain maps of images of any size, a few or a whole archive, and an index of them.",
        "s5mars predict runs/a IMAGE_OR_FOLDER --out maps",
        _predict_options,
        _predict,
    ),
    "find": Command(
        "Products whose maps or labels fulfil a condition, as a table and a sheet of pictures.",
        's5mars find maps "rock > 0.2 and sol between 400 and 500" --top 20 --sheet sheet.png',
        _find_options,
        _find,
    ),
}
