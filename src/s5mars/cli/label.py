"""The command label."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from s5mars.cli.command import Command


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="Path to the folder of images")
    parser.add_argument(
        "--classes",
        help="Names of the classes, as in soil,bedrock,rock, or path to a dataset.yaml (those of "
        "the folder)",
    )
    parser.add_argument(
        "--start-from",
        metavar="MODEL",
        help="Model whose features are used and that trainings start from: an installed one such "
        "as navcam, a run, a checkpoint, an ONNX file (features only) or hf:OWNER/NAME (an "
        "ImageNet encoder)",
    )
    parser.add_argument(
        "--port", type=int, default=8765, help="Port of the page; 0 chooses a free one (8765)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="Address to listen on (127.0.0.1, this machine only)"
    )
    parser.add_argument("--device", default="auto", help="Device: auto, cpu, cuda or mps (auto)")
    parser.epilog = (
        f"All other options are those of s5mars train, for the Train button.\n\n{parser.epilog}"
    )


def _label(options: Namespace) -> None:
    from s5mars.labels.loop.command import label

    label(training=vars(options).pop("passed_on"), **vars(options))


COMMANDS = {
    "label": Command(
        "Paint labels in the browser, with a model that is fitted as you paint.",
        's5mars label FOLDER --classes "soil,bedrock,rock"',
        _options,
        _label,
        passes_on=True,
    ),
}
