"""``s5mars train``: its options are the fields of ``TrainConfig`` and of the method."""

from __future__ import annotations

from pathlib import Path

from s5mars.errors import UserError

ABOUT = "Train a segmentation model on a folder of images with few, sparse labels."
EXAMPLE = (
    "s5mars train --data DATA --labelled 0.125 --steps 600 --model tf_efficientnet_lite0 "
    "--out runs/a"
)


def train(arguments: list[str]) -> int:
    """Train, resume a run, or print help; jsonargparse parses these options."""
    from s5mars.settings.parsing import parse_training, training_from_yaml, training_parser

    if {"-h", "--help"} & set(arguments):
        with_method = any(a.split("=")[0] == "--method" for a in arguments)
        parser = training_parser(arguments, with_method=with_method)
        parser.description = ABOUT
        parser.epilog = (
            f"example: {EXAMPLE} | resume a stopped run: s5mars train --resume runs/a | options of "
            "a method, such as --s5mars.soft-weight: s5mars train --method s5mars --help | options "
            "of another network: s5mars train --model san --help | all settings as YAML: s5mars "
            "train --method s5mars --print-config"
        )
        parser.print_help()
        return 0
    if any(a.split("=")[0] == "--resume" for a in arguments):
        run = Path(_only_resume(arguments))
        settings = training_from_yaml(run / "config.yaml")
        from s5mars.training import run as training

        training.resume(run, settings.config, settings.method)
        return 0
    settings = parse_training(arguments)
    from s5mars.training import run as training

    training.train(settings.config, settings.method, config_text=settings.text)
    return 0


def _only_resume(arguments: list[str]) -> str:
    words = [
        word
        for argument in arguments
        for word in (argument.split("=", 1) if argument.startswith("--resume=") else [argument])
    ]
    if len(words) != 2 or words[0] != "--resume" or not words[1] or words[1].startswith("--"):
        raise UserError(
            "--resume takes the run folder and no other option: a resumed run keeps its settings"
        )
    return words[1]
