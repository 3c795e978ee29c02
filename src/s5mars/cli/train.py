"""``s5mars train``: its options are the fields of ``TrainConfig`` and of the method."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from s5mars.cli.command import OneLineParser, data_of, require_data_set
from s5mars.errors import UserError

ABOUT = "Train a segmentation model on a folder of images with few, sparse labels."
EXAMPLE = "s5mars train DATA"


def train(arguments: list[str]) -> int:
    """Train, resume a run, or print help; jsonargparse parses these options.

    Returns:
        The exit code: 128 + the number of the signal that has stopped the run, else 0.
    """
    if {"-h", "--help", "--help-all"} & set(arguments):
        from s5mars.settings.help import help_of_training

        print(help_of_training(arguments))
        return 0
    if any(a.split("=")[0] == "--resume" for a in arguments):
        from s5mars.training import command

        options = _resumed(arguments)
        data = None if options.data is None else Path(options.data)
        return command.resume(Path(options.resume), data=data, skip_bad=options.skip_bad).exit_code
    from s5mars.settings.parsing import check_recipe_and_ablation

    check_recipe_and_ablation(arguments)  # before the data and the import of torch
    if not any(word.startswith("--print-config") for word in arguments):
        require_data_set(data_of(arguments))
    from s5mars.training import command

    return command.train(arguments).exit_code


def _resumed(arguments: list[str]) -> Namespace:
    """The run to resume, where its data is now, and whether to skip damaged images."""
    parser = OneLineParser(prog="s5mars train", add_help=False, allow_abbrev=False)
    for name in ("--resume", "--data"):
        parser.add_argument(name, nargs="?", const="")
    parser.add_argument("--skip-bad", action="store_true")
    given, others = parser.parse_known_args(arguments)
    if "" in (given.resume, given.data):
        raise UserError(
            "a folder is missing: use --resume RUN, and --data DATA if the data was moved"
        )
    if others:
        raise UserError(
            "--resume accepts only the run folder, --data (if the data was moved) and --skip-bad "
            "(to leave out damaged images of the pool), because a resumed run keeps its settings"
        )
    return given
