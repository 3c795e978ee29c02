"""Commands about labels of other tools: import, export-labels."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from s5mars.cli.command import Command

SHOWN = 20
"""Number of warnings that are printed; a file has all of them."""


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

    imported = import_labels(
        options.export,
        images=options.images,
        out=options.out,
        form=options.form,
        classes=options.classes,
    )
    _warn(imported.warnings)
    print(imported)
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

    exported = export_labels(options.maps, to=options.to, out=options.out, top=options.top)
    _warn(exported.warnings)
    print(exported)
    return exported


def _warn(warnings: Sequence[str]) -> None:
    for line in warnings[:SHOWN]:
        print(f"s5mars: warning: {line}", file=sys.stderr)
    if len(warnings) > SHOWN:
        print(f"s5mars: warning: and {len(warnings) - SHOWN} more", file=sys.stderr)


COMMANDS = {
    "import": Command(
        "Make a data set from the export of CVAT, Label Studio, labelme, COCO, or from masks.",
        "s5mars import export.zip --images photos --out data --classes 'rock=big rock,boulder'",
        _import_options,
        _import,
    ),
    "export-labels": Command(
        "Write maps in the format of a label tool for correction, the least confident first.",
        "s5mars export-labels maps --to cvat --out to_correct --top 50",
        _export_options,
        _export,
    ),
}
