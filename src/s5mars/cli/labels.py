"""Commands about labels: label, import, export-labels."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from s5mars.cli.command import Command
from s5mars.errors import warn_of_all


def _label_options(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="Path to the folder of images")
    parser.add_argument(
        "--classes",
        help="Names of the classes, as in soil,bedrock,rock, or path to a dataset.yaml (those of "
        "the folder)",
    )
    parser.add_argument(
        "--start-from",
        metavar="MODEL",
        help="Model whose features the page uses and from which the Train button starts: an "
        "installed one such as navcam, a run, a checkpoint, an ONNX file (features only) or "
        "hf:OWNER/NAME (an ImageNet encoder)",
    )
    parser.add_argument(
        "--port", type=int, default=8765, help="Port of the page; 0 chooses a free one (8765)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="Address to listen on (127.0.0.1, this machine only)"
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="Device for suggestions and maps: auto, cpu, cuda or mps (auto); the Train button "
        "uses --accelerator instead",
    )
    parser.epilog = (
        f"All other options are those of s5mars train, for the Train button.\n\n{parser.epilog}"
    )


def _label(options: Namespace) -> None:
    from s5mars.labels.loop.command import label

    label(training=vars(options).pop("passed_on"), **vars(options))


def _import_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "export", type=Path, help="Path to the export: folder, zip archive, JSON or XML file"
    )
    parser.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="Path to the folder of the images"
    )
    parser.add_argument("--out", type=Path, required=True, help="Path to the new folder")
    parser.add_argument(
        "--from", dest="form", metavar="FORMAT",
        help="Format: cvat, labelstudio, labelme, coco or masks (recognised)",
    )  # fmt: skip
    parser.add_argument(
        "--classes", nargs="+", default=[], metavar="CLASS=LABEL,...",
        help="Labels to merge and rename, as in 'rock=big rock,boulder'; ignore=LABEL leaves a "
        "label out; other labels keep their names; a dataset.yaml gives the order of the classes",
    )  # fmt: skip


def _import(options: Namespace) -> object:
    from s5mars.labels.importing import import_labels

    imported = import_labels(**vars(options))
    warn_of_all(imported.warnings)
    return imported


def _export_options(parser: ArgumentParser) -> None:
    parser.add_argument("maps", type=Path, help="Path to a folder written by s5mars predict")
    parser.add_argument(
        "--to", required=True, metavar="FORMAT", help="Format: cvat, labelme or coco"
    )
    parser.add_argument("--out", type=Path, required=True, help="Path to the new folder")
    parser.add_argument(
        "--top", type=int, metavar="N", help="Number of images, the least confident ones (all)"
    )


def _export(options: Namespace) -> object:
    from s5mars.labels.exporting import export_labels

    exported = export_labels(**vars(options))
    warn_of_all(exported.warnings)
    return exported


COMMANDS = {
    "label": Command(
        "Paint labels in the browser, with a model that is fitted as you paint.",
        's5mars label FOLDER --classes "soil,bedrock,rock"',
        _label_options,
        _label,
        passes_on=True,
    ),
    "import": Command(
        "Make a data set from the export of CVAT, Label Studio, labelme, COCO, or from masks.",
        "s5mars import export.zip --images photos --out data --classes 'rock=big rock,boulder'",
        _import_options,
        _import,
        prints=True,
    ),
    "export-labels": Command(
        "Write maps in the format of a label tool for correction, the least confident first.",
        "s5mars export-labels maps --to cvat --out to_correct --top 50",
        _export_options,
        _export,
        prints=True,
    ),
}
