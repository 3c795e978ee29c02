"""The command line. No logic: each command reads its options and calls one function of a room.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import difflib
import os
import sys
from argparse import ArgumentError, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

USER_ERROR = 2


@dataclass(frozen=True)
class Command:
    """One command: what it says of itself, its options, and what it runs."""

    about: str
    example: str
    options: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], object]
    passes_on: bool = False  # options that it does not know are somebody else's to judge


class OneLineParser(ArgumentParser):
    """argparse without its usage text before an error."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing and exiting."""
        raise ValueError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; users' mistakes become one line on standard error and exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(arguments)
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; nothing may be flushed to it any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, FileNotFoundError, IsADirectoryError, PermissionError, OSError) as error:
        if os.environ.get("S5MARS_TRACEBACK"):
            raise
        print(f"s5mars: {_one_line(error)}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("s5mars: interrupted", file=sys.stderr)
        return 130


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_overview())
        return 0
    if arguments[0] == "--version":
        from s5mars import __version__

        print(f"s5mars {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name == "train":
        return _train(rest)
    if name not in COMMANDS:
        names = [*COMMANDS, "train"]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        raise ValueError(f"unknown command {name!r}; nearest: {near[0]}; all: {', '.join(names)}")
    command = COMMANDS[name]
    parser = OneLineParser(
        prog=f"s5mars {name}",
        description=command.about,
        epilog=f"example:\n  {command.example}",
        formatter_class=RawDescriptionHelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    command.options(parser)
    command.run(_parse(parser, rest, passes_on=command.passes_on))
    return 0


def _parse(parser: ArgumentParser, arguments: Sequence[str], *, passes_on: bool) -> Namespace:
    try:
        namespace, unknown = parser.parse_known_args(arguments)
    except ArgumentError as error:
        parser.error(str(error))
    if passes_on:
        namespace.passed_on = unknown
    elif unknown:
        known = [o for action in parser._actions for o in action.option_strings]
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; the nearest is {near[0]}" if near else f"; see {parser.prog} --help"
        raise ValueError(f"unknown option {unknown[0]}{hint}")
    return namespace


def _overview() -> str:
    width = max(len(name) for name in [*COMMANDS, "train"])
    lines = ["s5mars: from rover images with a few, sparse labels to terrain maps", ""]
    shown = {"train": (_TRAIN_ABOUT, _TRAIN_EXAMPLE)} | {
        name: (command.about, command.example) for name, command in COMMANDS.items()
    }
    for name in _ORDER:
        about, example = shown[name]
        lines += [f"  {name:<{width}}  {about}", f"  {'':<{width}}    {example}"]
    lines += ["", "options of a command: s5mars COMMAND --help"]
    return "\n".join(lines)


# train ---------------------------------------------------------------------------------------

_TRAIN_ABOUT = "Train a segmentation model on a folder of images with a few, sparse labels."
_TRAIN_EXAMPLE = (
    "s5mars train --data DATA --labelled 0.125 --steps 600 --model tf_efficientnet_lite0 "
    "--out runs/a"
)


def _train(arguments: list[str]) -> int:
    from s5mars.options import parse_training, training_from_yaml, training_parser

    if {"-h", "--help"} & set(arguments):
        with_method = any(a.split("=")[0] == "--method" for a in arguments)
        training_parser(arguments, with_method=with_method).print_help()
        return 0
    if any(a.split("=")[0] == "--resume" for a in arguments):
        run = Path(_only_resume(arguments))
        settings = training_from_yaml(run / "config.yaml")
        from s5mars.training.run import resume

        resume(run, settings.config, settings.method)
        return 0
    settings = parse_training(arguments)
    from s5mars.training.run import train

    train(settings.config, settings.method, config_text=settings.text)
    return 0


def _only_resume(arguments: list[str]) -> str:
    words = [
        word
        for argument in arguments
        for word in (argument.split("=", 1) if argument.startswith("--resume=") else [argument])
    ]
    if len(words) != 2 or words[0] != "--resume" or not words[1] or words[1].startswith("--"):
        raise ValueError(
            "--resume takes the run folder and no other option: a resumed run keeps its settings"
        )
    return words[1]


# data ----------------------------------------------------------------------------------------


def _synth_options(parser: ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--images", type=int, default=60, help="labelled scenes (60)")
    parser.add_argument("--size", type=int, default=512, help="side in pixels (512)")
    parser.add_argument("--unlabelled", type=int, default=0, help="more scenes, no labels (0)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (0)")


def _synth(options: Namespace) -> object:
    from s5mars.data.synthetic import write_synthetic

    return write_synthetic(
        options.out,
        images=options.images,
        size=options.size,
        seed=options.seed,
        unlabelled=options.unlabelled,
    )


def _split_options(parser: ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="folder of the data set")
    parser.add_argument(
        "--labelled", type=float, nargs="+", default=[0.2, 0.5], help="shares (0.2 0.5)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another draw (0)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the lists")


def _split(options: Namespace) -> object:
    from s5mars.data.partition import write_partitions

    return write_partitions(
        options.data, labelled=options.labelled, seed=options.seed, out=options.out
    )


def _stats_options(parser: ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for JSON and figures")
    parser.add_argument("--split", help="one split (train, val and test together)")


def _stats(options: Namespace) -> object:
    from s5mars.data.statistics import write_statistics

    return write_statistics(options.data, out=options.out, split=options.split)


# use -----------------------------------------------------------------------------------------


def _inference_options(parser: ArgumentParser) -> None:
    parser.add_argument("--network", choices=["teacher", "student"], default="teacher")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (auto)")
    parser.add_argument("--window", type=int, default=1024, help="side of a window (1024)")
    parser.add_argument("--overlap", type=float, default=0.25, help="share of a window (0.25)")
    parser.add_argument("--batch", type=int, default=1, help="windows in one forward pass (1)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="(fp32)")


def _evaluate_options(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder or checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--split", default="test", help="(test)")
    parser.add_argument(
        "--protocol", choices=["full", "paper"], default="full",
        help="whole image, or centre crop 1024 (full)",
    )  # fmt: skip
    _inference_options(parser)
    parser.add_argument(
        "--merge", nargs="+", default=[], metavar="A+B", help="classes to count as one"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object only")


def _evaluate(options: Namespace) -> object:
    from s5mars.evaluation.command import evaluate

    return evaluate(
        options.run,
        data=options.data,
        split=options.split,
        protocol=options.protocol,
        network=options.network,
        merge=options.merge,
        as_json=options.json,
        device=options.device,
        window=options.window,
        overlap=options.overlap,
        batch=options.batch,
        precision=options.precision,
    )


def _predict_options(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder or checkpoint")
    parser.add_argument("inputs", type=Path, nargs="+", help="images or folders")
    parser.add_argument("--out", type=Path, required=True, help="folder for the maps")
    _inference_options(parser)
    parser.add_argument("--skip-bad", action="store_true", help="leave out unreadable files")
    parser.add_argument("--no-overlay", action="store_true", help="write no overlays")
    parser.add_argument("--no-confidence", action="store_true", help="write no confidence maps")


def _predict(options: Namespace) -> object:
    from s5mars.predict.folder import predict_images
    from s5mars.predict.predictor import load

    predictor = load(
        options.run,
        network=options.network,
        device=options.device,
        window=options.window,
        overlap=options.overlap,
        batch=options.batch,
        precision=options.precision,
    )
    summary = predict_images(
        predictor,
        options.inputs,
        out=options.out,
        skip_bad=options.skip_bad,
        overlays=not options.no_overlay,
        confidence=not options.no_confidence,
    )
    print(summary)
    return summary


def _report_options(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, nargs="+", help="run folder; several are compared")
    parser.add_argument("--out", type=Path, help="the page (RUN/report.html)")


def _report(options: Namespace) -> object:
    if len(options.run) == 1:
        from s5mars.report.run import write_report

        page = write_report(options.run[0], out=options.out)
    else:
        from s5mars.report.comparison import write_comparison

        if options.out is None:
            raise ValueError("several runs are compared on one page: give it a name with --out")
        page = write_comparison(options.run, out=options.out)
    print(page)
    return page


def _show_options(parser: ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="folder of the data set")
    parser.add_argument(
        "--augmentations", default="augin", help="strong, augin, mixing or objects (augin)"
    )
    parser.add_argument("--image", help="name of the image (drawn by the seed)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (0)")
    parser.add_argument("--objects", type=Path, help="object proposals (graph segmentation)")
    parser.add_argument("--out", type=Path, required=True, help="the picture, a PNG file")


def _show(options: Namespace) -> object:
    from s5mars.report.augmentations import show_augmentations

    sheet = show_augmentations(**vars(options))
    print(sheet)
    return sheet


def _demo_options(parser: ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="your images; without it, synthetic scenes")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="(runs/demo)")
    parser.add_argument("--labelled", type=float, default=0.25, help="share of labels (0.25)")
    parser.add_argument("--steps", type=int, default=300, help="of each method (300)")


def _demo(options: Namespace) -> object:
    from s5mars.demo import DemoSettings, demo

    settings = DemoSettings(labelled=options.labelled, steps=options.steps)
    return demo(options.out, data=options.data, settings=settings)


# many runs -----------------------------------------------------------------------------------


def _compare_options(parser: ArgumentParser) -> None:
    parser.add_argument("--methods", nargs="+", default=[], help="names, or all")
    parser.add_argument("--ablation", help="rows of an ablation of S5Mars, such as augin")
    parser.add_argument(
        "--labelled", nargs="+", default=["1.0"], help="shares of the train split, or lists (1.0)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(0)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the comparison")
    parser.add_argument(
        "--protocol", choices=["full", "paper"], default="full",
        help="test on whole images, or on centre crops of 1024 (full)",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="cells at once (1)")
    parser.add_argument("--note", help="for the tables, such as what was tuned")
    parser.add_argument("--retry-failed", action="store_true", help="try failed cells again")
    parser.add_argument("--keep-checkpoints", action="store_true", help="keep every last.ckpt")
    parser.epilog = f"all other options are those of train\n\n{parser.epilog}"


def _compare(options: Namespace) -> object:
    from s5mars.compare.plan import Request
    from s5mars.compare.runner import compare

    return compare(
        Request(
            out=options.out,
            arguments=options.passed_on,
            methods=options.methods,
            ablation=options.ablation,
            labelled=options.labelled,
            seeds=options.seeds,
            protocol=options.protocol,
            jobs=options.jobs,
            note=options.note,
            retry_failed=options.retry_failed,
            keep_checkpoints=options.keep_checkpoints,
        )
    )


def _table_options(parser: ArgumentParser) -> None:
    parser.add_argument("comparison", type=Path, help="folder of an s5mars compare --out")
    parser.add_argument("--format", choices=["md", "latex", "html", "csv"], default="md")
    parser.add_argument("--out", type=Path, help="file for the tables (standard output)")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="draw the figures, too")
    parser.add_argument("--row", help="of the worst cases (s5mars, or the best row)")
    parser.add_argument("--images", type=int, default=5, help="in a figure of images (5)")
    parser.add_argument("--data", type=Path, help="the data set, if it was moved")


def _table(options: Namespace) -> object:
    from s5mars.compare.table import table

    text = table(options.comparison, form=options.format)
    if options.out is None:
        print(text, end="")
    else:
        from s5mars.files import write_text

        write_text(options.out, text)
        print(options.out)
    if options.figures is not None:
        from s5mars.compare.figures import write_figures

        written = write_figures(
            options.comparison,
            options.figures,
            row=options.row,
            images=options.images,
            data=options.data,
        )
        print("\n".join(map(str, written)), file=sys.stderr)
    return text


def _cost_options(parser: ArgumentParser) -> None:
    parser.add_argument("--methods", nargs="+", default=["all"], help="names, or all (all)")
    parser.add_argument("--model", default="resnet50", help="encoder (resnet50)")
    parser.add_argument("--crop", type=int, default=512, help="side in pixels (512)")
    parser.add_argument("--batch", type=int, default=8, help="images of each stream (8)")
    parser.add_argument("--classes", type=int, default=9, help="(9)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each method (3)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (auto)")
    parser.add_argument("--out", type=Path, help="file for the numbers as JSON")


def _cost(options: Namespace) -> object:
    from s5mars.compare.cost import cost
    from s5mars.compare.step import CostSettings

    return cost(
        options.methods,
        CostSettings(
            model=options.model,
            crop=options.crop,
            batch=options.batch,
            classes=options.classes,
            rounds=options.rounds,
            device=options.device,
        ),
        out=options.out,
    )


_ORDER = (
    "demo", "synth", "stats", "split", "show", "train", "evaluate", "predict", "report", "compare",
    "table", "cost",
)  # fmt: skip

COMMANDS = {
    "demo": Command(
        "Train two methods on the same few labels, score both, and write one page.",
        "s5mars demo --data DATA --out runs/demo",
        _demo_options,
        _demo,
    ),
    "synth": Command(
        "Render synthetic Mars scenes with sparse labels.",
        "s5mars synth scenes --images 60 --size 512 --seed 0",
        _synth_options,
        _synth,
    ),
    "stats": Command(
        "Colour and label statistics of a data set (table II, figure 2).",
        "s5mars stats DATA --out stats",
        _stats_options,
        _stats,
    ),
    "split": Command(
        "Stratified, nested lists of the images whose labels may be used.",
        "s5mars split DATA --labelled 0.2 0.5 --seed 0 --out partitions",
        _split_options,
        _split,
    ),
    "show": Command(
        "Pictures of the augmentations on one image (figures 6 and 8).",
        "s5mars show DATA --augmentations augin --seed 0 --out sheet.png",
        _show_options,
        _show,
    ),
    "evaluate": Command(
        "Score a model on a labelled split.",
        "s5mars evaluate runs/a --data DATA --split test",
        _evaluate_options,
        _evaluate,
    ),
    "predict": Command(
        "Terrain maps of images of any size.",
        "s5mars predict runs/a IMAGE_OR_FOLDER --out maps",
        _predict_options,
        _predict,
    ),
    "report": Command(
        "One self-contained HTML page about a run, or about several.",
        "s5mars report runs/a",
        _report_options,
        _report,
    ),
    "compare": Command(
        "Train and score methods on several labelled shares and seeds; goes on where it stopped.",
        "s5mars compare --data DATA --methods all --labelled 0.125 0.25 --seeds 0 1 2 --steps 600 "
        "--out results/x",
        _compare_options,
        _compare,
        passes_on=True,
    ),
    "table": Command(
        "The tables and figures of a comparison, with intervals over seeds and the protocol.",
        "s5mars table results/x --format md --figures figures",
        _table_options,
        _table,
    ),
    "cost": Command(
        "Parameters, operations, time and memory of a training step of each method (table XIII).",
        "s5mars cost --methods all --model resnet50 --crop 512 --batch 8",
        _cost_options,
        _cost,
    ),
}


def _one_line(error: BaseException) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{error.filename}: a file is in the way: remove it, or choose another name"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # An error from a loader process arrives as its whole traceback; the last line is the message.
    if lines[0].startswith("Caught ") and len(lines) > 1:
        return lines[-1].partition(": ")[2] or lines[-1]
    return " ".join(lines)
