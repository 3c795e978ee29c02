"""Commands about several runs: compare, table, cost."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import get_args

from s5mars.cli.command import Command
from s5mars.errors import UserError
from s5mars.settings.keywords import as_option


def _compare_options(parser: ArgumentParser) -> None:
    parser.add_argument("--methods", nargs="+", default=[], help="Names of methods, or all")
    parser.add_argument("--ablation", help="Name of an ablation of S5Mars, such as augin")
    parser.add_argument(
        "--table-vi",
        action="store_true",
        help="Compare SAM-CLS, SAN and SAN-FT (docs/zero-shot.md)",
    )
    parser.add_argument("--sam-weights", help="Folder or hub id of SAM, for SAM-CLS")
    parser.add_argument("--clip-weights", help="Folder or hub id of CLIP, for SAN")
    parser.add_argument("--san-weights", help="Path to the authors' checkpoint, for SAN")
    parser.add_argument(
        "--labelled",
        nargs="+",
        default=["1.0"],
        help="Shares of the train split, or list files (1.0)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="Seeds of the runs (0)")
    parser.add_argument(
        "--out", type=Path, required=True, help="Path to the folder of the comparison"
    )
    parser.add_argument(
        "--split", default="test", help="Split to score; use val to choose settings (test)"
    )
    parser.add_argument(
        "--protocol", choices=["full", "paper"], default="full",
        help="Score whole images, or centre crops of 1024 pixels (full)",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="Number of runs at the same time (1)")
    parser.add_argument("--note", help="Note for the tables, such as what was tuned")
    parser.add_argument("--retry-failed", action="store_true", help="Retry failed runs")
    parser.add_argument(
        "--keep-checkpoints", action="store_true", help="Keep the last.ckpt of every run"
    )
    parser.epilog = (
        "All other options are those of s5mars train; --data is required. If --model, --resolution "
        f"or --crop is not given, it is chosen once for all runs.\n\n{parser.epilog}"
    )


def _table_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "comparison",
        type=Path,
        nargs="+",
        help="Paths to folders written by s5mars compare, or to copies of their comparison.json; "
        "several with the same settings, such as other seeds, give one table",
    )
    parser.add_argument(
        "--reference",
        metavar="ROW",
        help="Row that the others are compared with (supervised, or the first row)",
    )
    parser.add_argument(
        "--format",
        choices=["md", "latex", "html", "csv"],
        default="md",
        help="Format of the tables (md)",
    )
    parser.add_argument(
        "--out", type=Path, help="Path to the file for the tables (standard output)"
    )
    parser.add_argument(
        "--figures", type=Path, metavar="DIR", help="Path to a folder for the figures"
    )
    figures = parser.add_argument_group("options of --figures")
    figures.add_argument("--row", help="Row whose worst images are drawn (s5mars, or the best row)")
    figures.add_argument("--images", type=int, help="Number of images in a figure (5)")
    figures.add_argument("--data", type=Path, help="Path to the data set, if it was moved")


def _table(options: Namespace) -> None:
    from s5mars.comparison.table import table

    drawing = {key: getattr(options, key) for key in ("row", "images", "data")}
    drawing = {key: value for key, value in drawing.items() if value is not None}
    if drawing and options.figures is None:
        raise UserError(f"{as_option(next(iter(drawing)))} requires --figures")
    text = table(options.comparison, form=options.format, reference=options.reference)
    if options.out is None:
        print(text, end="")
    else:
        from s5mars.files import write_text

        write_text(options.out, text)
        print(options.out)
    if options.figures is not None:
        from s5mars.comparison.figures import has_runs, write_figures

        written = write_figures(options.comparison, options.figures, **drawing)
        print("\n".join(map(str, written)), file=sys.stderr)
        if not has_runs(options.comparison):
            print(
                "predictions were not drawn: they need one folder of a comparison with its runs",
                file=sys.stderr,
            )


def _cost_options(parser: ArgumentParser) -> None:
    from s5mars.settings.config import Head

    parser.add_argument(
        "--methods", nargs="+", default=["all"], help="Names of methods, or all (all)"
    )
    parser.add_argument("--model", default="resnet50", help="Name of the encoder (resnet50)")
    parser.add_argument(
        "--head",
        choices=get_args(Head),
        default="auto",
        help="Name of the decoder (auto)",
    )
    parser.add_argument("--crop", type=int, default=512, help="Side of a crop in pixels (512)")
    parser.add_argument("--batch", type=int, default=8, help="Number of images of each stream (8)")
    parser.add_argument("--classes", type=int, default=9, help="Number of classes (9)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="Number of measurements of each method (3)"
    )
    parser.add_argument("--device", default="auto", help="Device: auto, cpu, cuda or mps (auto)")
    parser.add_argument("--out", type=Path, help="Path to a JSON file for the numbers")


def _cost(options: Namespace) -> object:
    from s5mars.comparison.cost import cost
    from s5mars.comparison.step import CostSettings

    methods, out = vars(options).pop("methods"), vars(options).pop("out")
    return cost(methods, CostSettings(**vars(options)), out=out)


COMMANDS = {
    "compare": Command(
        "Train and score methods on several labelled shares and seeds; resumes after a stop.",
        "s5mars compare --data DATA --methods all --labelled 0.125 0.25 --seeds 0 1 2 --steps 600 "
        "--out results/x",
        _compare_options,
        "s5mars.comparison.command.compare",
        passes_on=True,
        reads_data=True,
    ),
    "table": Command(
        "Write tables and figures of a comparison, with intervals over seeds and the protocol.",
        "s5mars table results/x --format md --figures figures",
        _table_options,
        _table,
    ),
    "cost": Command(
        "Measure parameters, operations, time and memory of a step (table XIII of the paper).",
        "s5mars cost --methods all --model resnet50 --crop 512 --batch 8",
        _cost_options,
        _cost,
    ),
}
